"""Build every engine that TensorRT-RTX can build without a GPU, as a Markdown table.

    python benchmarks/gpu/engines.py [--models DIR ...]

That a graph parses and builds is all that this shows; what the engine computes, only a GPU can.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from edgeface.bundle import load_bundle, shipped_models
from edgeface.runtimes.base import BACKENDS, RuntimeOptions
from edgeface.runtimes.nvidia.build import build
from edgeface.runtimes.nvidia.profiles import Profile, first_profile, profile_for
from edgeface.runtimes.nvidia.vendor import find_vendor

NAME = "tensorrt-rtx"
PRECISIONS = ("fp32", "fp16", "int8")
BATCH = 8


def profiles(stride: int) -> Iterator[Profile]:
    """One size, any size to 640, and that in batches."""
    for size in ((640, 480), None):
        options = RuntimeOptions(size, (), False, 1, "", stride, 640)
        yield first_profile(options)
    yield profile_for((BATCH, 480, 640, 3), options)


def main() -> int:
    """Build and print; an engine that does not build ends it with its error."""
    parser = argparse.ArgumentParser(description="Build engines without a GPU.")
    parser.add_argument("--models", nargs="+", default=shipped_models(), help="names or folders")
    args = parser.parse_args()
    vendor = find_vendor(NAME)
    print(f"TensorRT-RTX {vendor.version}, no GPU needed\n")
    print("| model | file | precision | frames | engine MB | s |\n|---|---|---|---|---|---|")
    for bundle in map(load_bundle, args.models):
        for precision in PRECISIONS:
            artifact = BACKENDS[NAME].artifact(bundle, (precision,))
            if artifact is None:
                print(f"| {bundle.name} | none | {precision} | – | – | – |")
                continue
            data = bundle.open(artifact)
            for profile in profiles(bundle.anchors.max_stride):
                began = time.monotonic()
                size = len(build(vendor, data, profile).engine) / 2**20
                seconds = time.monotonic() - began
                cells = (bundle.name, artifact.file, precision, profile)
                print(f"| {' | '.join(map(str, cells))} | {size:.1f} | {seconds:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
