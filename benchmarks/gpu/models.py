"""Write a ResNet-18 bundle for timing: its weights are random, for they do not change the time.

    python benchmarks/gpu/models.py OUT

Needs the extra 'convert'; do it on a PC and carry the folder OUT/retinaface_resnet18 to the GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeface.converters.bundle import convert, write_bundle
from edgeface.nets import build

PRESET = "retinaface_resnet18"


def main() -> int:
    """Build, convert, write."""
    parser = argparse.ArgumentParser(description="Write a ResNet-18 bundle for timing.")
    parser.add_argument("out", type=Path, help="folder that will hold the bundle's folder")
    args = parser.parse_args()
    net = build(PRESET)
    conversion = convert(net, targets=("onnx",))
    metadata = {"source": "random weights", "licence": "Apache-2.0", "accuracy": "none: untrained"}
    bundle = write_bundle(PRESET, net, conversion, args.out / PRESET, metadata, force=True)
    print(bundle.path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
