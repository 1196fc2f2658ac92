"""The licences of what edgeface's extras bring, as docs/licences.md shows them.

    python .ci/licences.py > docs/licences.md

Reads the metadata of the packages that are installed; run it where the extra 'dev' is.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

EXTRAS = (
    *("", "openvino", "tflite", "serve", "archive", "bench", "samples", "train", "convert"),
    "quantize",
)
HEAD = """# Licences

edgeface's code is under the Apache License 2.0, and so are the weights that ship. The pictures that
the weights were trained on are third-party web photographs collected for research (WIDER FACE,
HELEN, AFW); none of them is distributed. Whoever needs weights of another origin trains their own:
[Training](training.md).

What each extra installs, and under which licence, as the packages' own metadata says
(`python .ci/licences.py`). Their own dependencies are listed with them.
"""


def wanted(name: str, extra: str = "") -> list[str]:
    """Names of the packages that a distribution requires, of an extra where one is given."""
    names = []
    for line in distribution(name).requires or []:
        requirement, _, marker = line.partition(";")
        of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        if (of_extra[1] if of_extra else "") == extra:
            names.append(re.split(r"[\s\[<>=!~(]", requirement.strip(), maxsplit=1)[0].lower())
    return names


def licence(name: str) -> str:
    """Short licence of an installed distribution."""
    metadata = distribution(name).metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [
        line.rsplit(" :: ", 1)[1]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    first = (metadata.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (first[0][:60] if first else "not stated")


def closure(names: list[str]) -> list[str]:
    """Names with all that they require, those that are installed."""
    seen: dict[str, None] = {}
    pending = list(names)
    while pending:
        name = pending.pop(0)
        try:
            needs = wanted(name)
        except PackageNotFoundError:
            continue
        if name not in seen:
            seen[name] = None
            pending += needs
    return sorted(seen)


def main() -> int:
    """Print the page."""
    print(HEAD)
    for extra in EXTRAS:
        print(f"## {f'Extra {extra}' if extra else 'edgeface alone'}\n")
        print("| package | version | licence |\n|---|---|---|")
        for name in closure(wanted("edgeface", extra)):
            print(f"| {name} | {distribution(name).version} | {licence(name)} |")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
