"""Faces from the bare ONNX file: onnxruntime and NumPy, no edgeface. A template for C or Rust.

In: `image`, uint8 (1, H, W, 3) BGR, H and W multiples of the coarsest stride. Out, for each
stride: `logit` (1, M, 1), `delta` (1, M, 4) and `landmark` (1, M, 10), float32. The M anchors run
row by row, cell by cell, then size by size; manifest.json holds their sizes.

Run: python samples/onnx_minimal.py edgeface/models/retinaface_mobilenet025 photo.ppm
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


def read_ppm(path: Path) -> np.ndarray:
    """Read a binary PPM (P6, 8 bits) as BGR uint8 (H, W, 3)."""
    data = path.read_bytes()
    magic, width, height, depth = data[:32].split()[:4]
    if (magic, depth) != (b"P6", b"255"):
        raise SystemExit(f"expected a binary PPM of 8 bits, got {path}")
    shape = int(height), int(width), 3
    return np.frombuffer(data[-np.prod(shape) :], np.uint8).reshape(shape)[..., ::-1]


def decode(outputs: dict, level: dict, variances: list, width: int, least: float) -> np.ndarray:
    """Return x1, y1, x2, y2, score and 5 times x, y of every anchor above the logit."""
    stride, sizes = level["stride"], np.array(level["sizes"], np.float32)
    logit, delta, offset = (outputs[f"{n}_{stride}"][0] for n in ("logit", "delta", "landmark"))
    index = np.flatnonzero(logit > least)
    size = sizes[index % len(sizes), None]
    row, column = np.divmod(index // len(sizes), width // stride)
    prior = (np.stack([column, row], 1) + np.float32(0.5)) * stride
    centre = prior + delta[index, :2] * variances[0] * size
    half = size * np.exp(delta[index, 2:] * variances[1]) / 2
    points = np.tile(prior, 5) + offset[index] * variances[0] * size
    score = 1 / (1 + np.exp(-logit[index]))
    return np.hstack([centre - half, centre + half, score, points])


def suppress(rows: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Greedy non-maximum suppression, best score first."""
    rows, kept = rows[np.argsort(-rows[:, 4], kind="stable")], []
    while len(rows):
        best, rows = rows[0], rows[1:]
        kept.append(best)
        overlap = np.minimum(best[2:4], rows[:, 2:4]) - np.maximum(best[:2], rows[:, :2])
        shared = overlap.clip(0).prod(1)
        areas = (best[2:4] - best[:2]).prod() + (rows[:, 2:4] - rows[:, :2]).prod(1)
        rows = rows[shared <= threshold * (areas - shared)]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of a model")
    parser.add_argument("image", type=Path, help="binary PPM")
    parser.add_argument("--score", type=float, default=0.4, help="least score (default: 0.4)")
    args = parser.parse_args()

    manifest = json.loads((args.bundle / "manifest.json").read_text())
    levels, variances = manifest["anchors"]["levels"], manifest["anchors"]["variances"]
    image = read_ppm(args.image)
    stride = levels[-1]["stride"]
    height, width = (-(-side // stride) * stride for side in image.shape[:2])
    frame = np.full((1, height, width, 3), manifest["pad_value"], np.uint8)
    frame[0, : image.shape[0], : image.shape[1]] = image
    session = onnxruntime.InferenceSession(args.bundle / "model.fp32.onnx")
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"image": frame}), strict=True))
    least = np.log(args.score / (1 - args.score))
    rows = [decode(outputs, level, variances, width, least) for level in levels]
    for row in suppress(np.vstack(rows), threshold=0.4):
        print(*np.round(row, 3))


if __name__ == "__main__":
    main()
