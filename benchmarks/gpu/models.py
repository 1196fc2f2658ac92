"""Write a ResNet-18 bundle for timing: its weights are random, for they do not change the time.

    python benchmarks/gpu/models.py OUT

Needs the extra 'quantize'; do it on a PC and carry the folder OUT/retinaface_resnet18 to the GPU.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from edgeface.bundle import PRECISIONS
from edgeface.calibration.quantize import quantize
from edgeface.converters.bundle import convert, write_bundle
from edgeface.nets import build

PRESET = "retinaface_resnet18"
FRAMES, SIDE = 4, 256


def quantise(target: str, source: bytes) -> bytes:
    """INT8 with the ranges of noise."""
    shape = (FRAMES, 1, SIDE, SIDE, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return quantize(target, source, list(frames))


def main() -> int:
    """Build, convert, write."""
    parser = argparse.ArgumentParser(description="Write a ResNet-18 bundle for timing.")
    parser.add_argument("out", type=Path, help="folder that will hold the bundle's folder")
    args = parser.parse_args()
    net = build(PRESET)
    wanted = product(("onnx", "tensorrt"), PRECISIONS)
    conversion = convert(net, wanted, quantise=quantise)
    metadata = {"source": "random weights", "licence": "Apache-2.0", "accuracy": "none: untrained"}
    bundle = write_bundle(PRESET, net, conversion, args.out / PRESET, metadata, force=True)
    print(bundle.path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
