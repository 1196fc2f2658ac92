"""What costs recall: the same faces, small, turned, dark or in the wrong colours, as Markdown.

    python benchmarks/misses.py --data WIDER [--limit 90] > table.md

Counts the faces of WIDER FACE's hard subset that are at least 24 pixels high once the long side is
shrunk to 640; a face is found where a box of the default score threshold has IoU 0.4 with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bundle import load_bundle
from edgeface.evaluation.wider import WiderImage, load_wider
from edgeface.imageio import read_image

Image: TypeAlias = NDArray[np.uint8]
Boxes: TypeAlias = NDArray[Any]
Size: TypeAlias = tuple[int, int]

LONG_SIDE, LEAST_HEIGHT, IOU = 640, 24, 0.4
NOISE = 2.0


def clockwise(boxes: Boxes, size: Size) -> Boxes:
    """Boxes of a picture that is turned by 90 degrees."""
    height = size[1]
    return np.stack([height - boxes[:, 3], boxes[:, 0], height - boxes[:, 1], boxes[:, 2]], 1)


def upside_down(boxes: Boxes, size: Size) -> Boxes:
    """Boxes of a picture that is turned by 180 degrees."""
    return np.array(size * 2) - boxes[:, [2, 3, 0, 1]]


def stay(boxes: Boxes, _size: Size) -> Boxes:
    """Boxes of a picture that is not turned."""
    return boxes


def darken(image: Image) -> Image:
    """A tenth of the light, with a sensor's noise."""
    noise = np.random.default_rng(0).normal(0, NOISE, image.shape)
    return (image * 0.1 + noise).clip(0, 255).astype(np.uint8)


def equalise(image: Image) -> Image:
    """Local contrast of the lightness, by CLAHE."""
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), np.uint8)


Change: TypeAlias = Callable[[Image], Any]
Place: TypeAlias = Callable[[Boxes, Size], Boxes]
CONDITIONS: dict[str, tuple[int, Change, Place]] = {
    "as it is": (640, np.asarray, stay),
    "`input_size=320`": (320, np.asarray, stay),
    "`input_size=1280`": (1280, np.asarray, stay),
    "turned by 90°": (640, lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE), clockwise),
    "upside down": (640, lambda image: cv2.rotate(image, cv2.ROTATE_180), upside_down),
    "RGB taken for BGR": (640, lambda image: image[..., ::-1].copy(), stay),
    "a tenth of the light": (640, darken, stay),
    "a tenth of the light, CLAHE": (640, lambda image: equalise(darken(image)), stay),
    "CLAHE in good light": (640, equalise, stay),
}


def overlaps(faces: Boxes, boxes: Boxes) -> NDArray[np.float64]:
    """IoU (N, M) of faces (N, 4) and boxes (M, 4)."""
    low = np.maximum(faces[:, None, :2], boxes[None, :, :2])
    high = np.minimum(faces[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (faces, boxes)]
    return np.asarray(shared / (areas[0][:, None] + areas[1] - shared))


def count(
    detector: Detector, images: Sequence[WiderImage], change: Change, place: Place
) -> tuple[int, int, int]:
    """Return the faces that count, those that were found, and all boxes."""
    total = found = boxes = 0
    for image in images:
        pixels = read_image(image.path)
        height, width = pixels.shape[:2]
        scale = min(1.0, LONG_SIDE / max(height, width))
        tall = (image.faces[:, 3] - image.faces[:, 1]) * scale >= LEAST_HEIGHT
        faces = place(image.faces[tall & image.keep["hard"]], (width, height))
        detected = detector(change(pixels)).boxes
        boxes += len(detected)
        total += len(faces)
        found += int((overlaps(faces, detected).max(1, initial=0) >= IOU).sum())
    return total, found, boxes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="WIDER FACE's validation set")
    parser.add_argument("--limit", type=int, default=90, help="pictures (default: 90)")
    parser.add_argument("--model", default="retinaface_mobilenet025")
    args = parser.parse_args()

    images = load_wider(args.data, args.limit)
    bundle = load_bundle(args.model)
    digests = [artifact.sha256 for artifact in bundle.artifacts if artifact.format == "onnx"]
    print(f"{bundle.name}, sha256 of the ONNX file {digests[0][:8]}…, {len(images)} pictures\n")
    print("| | faces | found | recall | boxes |\n|---|---|---|---|---|")
    for name, (size, change, place) in CONDITIONS.items():
        detector = Detector("onnxruntime", model=args.model, input_size=size, threads=1)
        total, found, boxes = count(detector, images, change, place)
        print(f"| {name} | {total} | {found} | {found / total:.2f} | {boxes} |", flush=True)


if __name__ == "__main__":
    main()
