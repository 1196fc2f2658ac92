"""Measure the tables and plots of docs/performance.md, and put them in.

    python benchmarks/performance.py --peers PEERS --wider WIDER [--rounds 100] [--accuracy FILE]

PEERS holds yunet_s_640_640.onnx, yunet_n_dynamic.onnx and the community's RetinaFace checkpoint
(retinaface_mobilenet025_community.safetensors); WIDER holds WIDER FACE's validation pictures. Run
it while the machine does nothing else: seven minutes. What a comparison measured stays in FILE
(performance.json where --json names no other), and --accuracy FILE spares a second run the
evaluation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeface.bundle import write_atomic

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
MODELS = ("retinaface_mobilenet025", "edgeface_nano")
YUNET = ("yunet_s_640_640.onnx", "yunet_n_dynamic.onnx")
CHECKPOINT = "retinaface_mobilenet025_community.safetensors"
RETINAFACE = "retinaface_community.onnx"
BENCH = ("-m", "edgeface", "bench")


def tables_of(command: Sequence[str]) -> str:
    """Run Python with these arguments and return the tables that it prints."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def put(page: str, name: str, content: str) -> str:
    """Replace what stands between a page's marks of that name."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"expected {begin} and {end} in the page, got a page without")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--wider", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--accuracy", type=Path, help="figures of an earlier run")
    parser.add_argument("--json", type=Path, default=Path("performance.json"))
    parser.add_argument("--only", nargs="+", choices=("against", "growth", "hotpath", "paper"))
    args = parser.parse_args()
    images = DOCS / "images"
    few = str(max(1, args.rounds // 5))
    with tempfile.TemporaryDirectory() as folder:
        retinaface = Path(folder) / RETINAFACE
        script = Path(__file__).with_name("community_onnx.py")
        subprocess.run(
            [sys.executable, str(script), str(args.peers / CHECKPOINT), str(retinaface)], check=True
        )
        peers = [*(str(args.peers / name) for name in YUNET), str(retinaface)]
        evaluated = args.accuracy or args.wider
        accuracy = [f"--{'accuracy' if args.accuracy else 'evaluate'}", str(evaluated)]
        runs = {
            "against": [
                *BENCH,
                *("--model", *MODELS, "--rounds", str(args.rounds), "--stages"),
                *("--against", *peers, *accuracy),
                *("--plot", str(images / "performance.png"), "--json", str(args.json)),
            ],
            "growth": [
                *BENCH,
                *("--growth", "--rounds", few, "--precision", "auto"),
                *("--plot", str(images / "growth.png")),
            ],
            "hotpath": [str(script.with_name("hotpath.py")), "--rounds", str(args.rounds)],
            "paper": [*BENCH, "--paper", "--rounds", few],
        }
        for name in args.only or runs:
            tables = tables_of(runs[name]).replace("](", "](images/")
            write_atomic(PAGE, put(PAGE.read_text("utf-8"), name, tables).encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
