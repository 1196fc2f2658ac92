"""Whether a GPU finds what the CPU finds: AP on WIDER FACE against fp32 on the CPU.

    python benchmarks/gpu/accuracy.py --data WIDER > accuracy.md
    python benchmarks/gpu/accuracy.py --data WIDER --limit 4 --dry-run

fp32 and fp16 must come within 0.003 AP of the CPU in every subset, else the exit code is 1; INT8
has its own gate, where it is made, and is only shown. The dry run holds the CPU against itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from edgeface import Detector
from edgeface.bundle import load_bundle
from edgeface.errors import EdgeFaceError
from edgeface.evaluation.report import Report
from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, evaluate
from edgeface.evaluation.wider import WiderImage, load_wider
from edgeface.runtimes.base import BACKENDS

TOLERANCE = 0.003
SUBSETS = ("easy", "medium", "hard")
GATED = ("fp32", "fp16")
NVIDIA = ("tensorrt", "tensorrt-rtx", "onnxruntime")
HEAD = (
    "| backend | precision | device | easy | medium | hard | furthest from the CPU |\n"
    "|---|---|---|---|---|---|---|"
)


class Result(NamedTuple):
    """AP of one backend and precision."""

    backend: str
    precision: str
    device: str
    report: Report


def run(
    model: str, backend: str, precision: str, size: int | None, dataset: list[WiderImage]
) -> Result:
    """Evaluate at the settings of published figures."""
    with Detector(
        backend,
        model=model,
        precision=precision,
        input_size=size,
        score_threshold=SCORE_THRESHOLD,
        nms_threshold=NMS_THRESHOLD,
        max_faces=MAX_FACES,
    ) as detector:
        device = detector.explain().facts.get("device", "")
        return Result(backend, precision, device, evaluate(detector, dataset))


def furthest(report: Report, baseline: Report) -> float:
    """The largest difference of AP over the subsets."""
    return max(abs(getattr(report, name) - getattr(baseline, name)) for name in SUBSETS)


def main() -> int:
    """Evaluate and print; 1 where a backend is off, or none ran."""
    parser = argparse.ArgumentParser(description="AP on a GPU against fp32 on the CPU.")
    parser.add_argument("--data", type=Path, required=True, help="WIDER FACE, as `edgeface eval`")
    parser.add_argument("--limit", type=int, help="use that many pictures (default: all)")
    parser.add_argument("--model", default="retinaface_mobilenet025")
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--backends", nargs="+", choices=NVIDIA, default=NVIDIA)
    parser.add_argument("--dry-run", action="store_true", help="hold the CPU against itself")
    args = parser.parse_args()
    dataset = load_wider(args.data, args.limit)
    bundle = load_bundle(args.model)
    if args.dry_run:
        print("DRY RUN on the CPU: no figure below is a GPU's.\n")
    # The CPU goes first and by OpenVINO or LiteRT it would not be the plain reference.
    baseline = run_on_cpu(args.model, args.long_side, dataset)
    print(HEAD)
    print(line(baseline, baseline.report))
    passed = ran = 0
    for backend in ("onnxruntime",) if args.dry_run else args.backends:
        for precision in ("fp32", "fp16", "int8"):
            if BACKENDS[backend].artifact(bundle, (precision,)) is None:
                continue
            try:
                result = run(args.model, backend, precision, args.long_side, dataset)
            except EdgeFaceError as error:
                text = " ".join(str(error).split()).replace("|", "/")
                print(f"| {backend} | {precision} | {text} | – | – | – | – |", flush=True)
                continue
            print(line(result, baseline.report), flush=True)
            ran += 1
            distance = furthest(result.report, baseline.report)
            passed += precision not in GATED or distance <= TOLERANCE
    verdict = "all within" if ran and passed == ran else "NOT all within"
    print(f"\n{len(dataset)} pictures, long side {args.long_side}: {verdict} {TOLERANCE} AP.")
    return 0 if ran and passed == ran else 1


def run_on_cpu(model: str, size: int, dataset: list[WiderImage]) -> Result:
    """fp32 on ONNX Runtime's CPU provider, even where its build has the CUDA provider."""
    import onnxruntime

    available = onnxruntime.get_available_providers
    onnxruntime.get_available_providers = lambda: ["CPUExecutionProvider"]
    try:
        return run(model, "onnxruntime", "fp32", size, dataset)
    finally:
        onnxruntime.get_available_providers = available


def line(result: Result, baseline: Report) -> str:
    """A table row."""
    values = " | ".join(f"{getattr(result.report, name):.4f}" for name in SUBSETS)
    distance = furthest(result.report, baseline)
    return (
        f"| {result.backend} | {result.precision} | {result.device} | {values} | {distance:.4f} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
