"""Do the exported artifacts compute what torch computes? Tensor by tensor, and face by face."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.anchors import AnchorSpec
from edgeface.converters.divergence import Divergence, find_divergence, snr_db
from edgeface.converters.inputsize import Size
from edgeface.converters.report import (
    BOUNDS,
    BackendParity,
    FaceParity,
    ParityReport,
    TensorParity,
)
from edgeface.errors import (
    BackendUnavailableError,
    ConversionError,
    EdgeFaceError,
    MissingDependencyError,
)
from edgeface.evaluation.average_precision import box_iou
from edgeface.faces import Faces
from edgeface.postprocess import postprocess
from edgeface.preprocess import Letterbox, letterbox
from edgeface.runtimes.base import BACKENDS, Outputs, RuntimeOptions, load

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

Picture: TypeAlias = NDArray[np.uint8]

# No suppression: where two boxes overlap by just as much as NMS bears, rounding decides.
NMS_THRESHOLD = 1.0
LARGEST_EXPONENT = 700.0
TENSORRT, REFERENCE = "tensorrt", "onnxruntime"
CANDIDATES = slice(30, 60)
# Neither square nor a size that a converter traces; the first is padded on both sides.
PROBE_SIZES: tuple[Size, ...] = ((333, 250), (224, 416))


def pad_value(net: DetectorNet) -> tuple[int, int, int]:
    """BGR value outside the picture in a letterboxed frame: the net's mean."""
    blue, green, red = (round(value) for value in net.mean)
    return blue, green, red


def probe_pictures(seed: int = 0) -> list[Picture]:
    """Pictures that no export has seen: smooth random blobs under fine noise, BGR uint8."""
    rng = np.random.default_rng(seed)
    pictures = []
    for size in PROBE_SIZES:
        blobs = rng.uniform(0, 255, (9, 9, 3)).astype(np.float32)
        smooth = cv2.resize(blobs, size, interpolation=cv2.INTER_CUBIC)
        noisy = smooth + rng.normal(0, 12, smooth.shape)
        pictures.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return pictures


def check_parity(
    net: DetectorNet,
    artifacts: Mapping[str, bytes],
    *,
    precision: str = "fp32",
    input_sizes: Mapping[str, Sequence[Size]] | None = None,
    batch: int | None = None,
    pictures: Sequence[Picture] | None = None,
) -> ParityReport:
    """Compare every backend that can load one of the artifacts with torch.

    Faces are compared among the best few dozen anchors of each picture, whatever their scores, so
    that pictures without a face serve as well. Where an artifact fails, its layers are compared
    too, and the report names the first that differs. ONNX Runtime runs TensorRT's graph as well,
    as its reference.

    Args:
        net: the trained net.
        artifacts: content of the files, by format; see ``edgeface.bundle.Artifact``.
        precision: their precision, one of ``BOUNDS``.
        input_sizes: (width, height) pairs of static files, by format.
        batch: frames that static files take at once; None: any number.
        pictures: BGR uint8 (H, W, 3); default: ``probe_pictures()``.

    Raises:
        MissingDependencyError: torch is not installed.
        ConversionError: a backend rejects a file, or fails while it runs one.
    """
    pictures = probe_pictures() if pictures is None else pictures
    compared, skipped = [], {}
    for backend, format in _runs(artifacts):
        sizes = tuple((input_sizes or {}).get(format, ()))
        placed = [_letterbox(net, picture, sizes) for picture in pictures]
        frames, places = [frame for frame, _ in placed], [place for _, place in placed]
        content = artifacts[format]
        try:
            version, outputs = _run(backend, content, sizes, batch, frames)
        except (MissingDependencyError, BackendUnavailableError) as error:
            skipped[backend] = str(error)
            continue
        expected = torch_outputs(net, frames)
        label = f"{backend} {version}"
        if format not in BACKENDS[backend].formats:
            label += f", graph for {format}"
        result = BackendParity(
            label,
            precision,
            compare_tensors(expected, outputs),
            compare_faces(net.anchors, expected, outputs, places, BOUNDS[precision].iou),
        )
        if not result.passed:
            bound = BOUNDS[precision].snr_db
            frame = np.repeat(frames[0], batch or 1, 0)
            divergence = _divergence(net, format, backend, content, frame, bound)
            result = replace(result, divergence=divergence)
        compared.append(result)
    return ParityReport(tuple(compared), skipped)


def _runs(artifacts: Collection[str]) -> list[tuple[str, str]]:
    """Which backends run which formats."""
    runs = []
    for backend in BACKENDS.values():
        format = next((one for one in backend.formats if one in artifacts), None)
        if format is not None:
            runs.append((backend.name, format))
    if TENSORRT in artifacts:
        runs.append((REFERENCE, TENSORRT))
    return runs


def _divergence(
    net: DetectorNet, format: str, backend: str, content: bytes, frame: Picture, bound: float
) -> Divergence | None:
    try:
        return find_divergence(net, format, backend, content, frame, bound)
    except Exception as error:  # vendors raise whatever they stumble over
        warnings.warn(f"the layers on '{backend}' are not compared: {error}", stacklevel=3)
        return None


def torch_outputs(
    net: DetectorNet, frames: Sequence[Picture]
) -> list[dict[str, NDArray[np.float32]]]:
    """Run the deployment form of a net in torch on uint8 (1, H, W, 3) frames."""
    import torch

    from edgeface.nets.export import ExportGraph, output_names

    graph, names = ExportGraph(net), output_names(net.anchors)
    with torch.inference_mode():
        return [
            {
                name: tensor.numpy()
                for name, tensor in zip(names, graph(torch.from_numpy(frame)), strict=True)
            }
            for frame in frames
        ]


def compare_tensors(
    expected: Sequence[Outputs], outputs: Sequence[Outputs]
) -> tuple[TensorParity, ...]:
    """Compare the outputs for the same frames, in the order of the expected ones' names.

    Raises:
        ConversionError: an output is missing or has another shape.
    """
    results = []
    for name in expected[0]:
        largest = 0.0
        for one, other in zip(expected, outputs, strict=True):
            got = other.get(name)
            if got is None or got.shape != one[name].shape:
                shape = "nothing" if got is None else str(got.shape)
                raise ConversionError(f"expected {name} of shape {one[name].shape}, got {shape}")
            largest = max(largest, float(np.abs(one[name] - got).max()))
        signals, gots = (
            np.concatenate([outputs[name].ravel() for outputs in side])
            for side in (expected, outputs)
        )
        results.append(TensorParity(name, largest, snr_db(signals, gots)))
    return tuple(results)


def compare_faces(
    anchors: AnchorSpec,
    expected: Sequence[Outputs],
    outputs: Sequence[Outputs],
    places: Sequence[Letterbox],
    least_iou: float = BOUNDS["fp32"].iou,
) -> FaceParity:
    """Compare the faces that postprocessing makes of the outputs for the same frames.

    Several faces may share a box, as where it is clipped to a small picture: each is compared with
    the one of its box whose landmarks are nearest.
    """
    total = matched = extra = 0
    least, farthest = 1.0, 0.0
    for one, other, place in zip(expected, outputs, places, strict=True):
        threshold = _clear_threshold(one)
        wanted, found = (_faces(values, anchors, place, threshold) for values in (one, other))
        iou = box_iou(wanted.boxes, found.boxes)
        apart = _landmark_distances(wanted, found)
        total += len(wanted)
        extra += int((iou.max(0, initial=0) < least_iou).sum())
        for row in np.flatnonzero(iou.max(1, initial=0) >= least_iou):
            same = np.flatnonzero(iou[row] >= least_iou)
            column = same[apart[row, same].argmin()]
            matched += 1
            least = min(least, float(iou[row, column]))
            farthest = max(farthest, float(apart[row, column]))
    return FaceParity(total, matched, extra, least, farthest)


def _landmark_distances(wanted: Faces, found: Faces) -> NDArray[np.float32]:
    """Largest distance of a landmark, in pixels, of every pair of faces; 0 without landmarks."""
    if wanted.landmarks is None or found.landmarks is None:
        return np.zeros((len(wanted), len(found)), np.float32)
    apart = wanted.landmarks[:, None] - found.landmarks[None]
    distances: NDArray[np.float32] = np.linalg.norm(apart, axis=3).max(2, initial=0)
    return distances


def _letterbox(
    net: DetectorNet, picture: Picture, sizes: Sequence[Size]
) -> tuple[Picture, Letterbox]:
    return letterbox(
        picture, None, stride=net.anchors.max_stride, pad_value=pad_value(net), allowed=sizes
    )


def _run(
    name: str,
    data: bytes,
    sizes: tuple[Size, ...],
    batch: int | None,
    frames: Sequence[Picture],
) -> tuple[str, list[Outputs]]:
    key = f"parity-{hashlib.sha256(data).hexdigest()}"
    options = RuntimeOptions(None, sizes, exact=True, threads=1, cache_key=key, batch=batch)
    try:
        runtime = load(name, data, options)
        try:
            outputs = [
                {key: value.copy() for key, value in runtime.infer(frame).items()}
                for frame in frames
            ]
            return runtime.describe()["version"], list(outputs)
        finally:
            runtime.close()
    except (MissingDependencyError, BackendUnavailableError):
        raise
    except EdgeFaceError as error:
        raise ConversionError(
            f"expected '{name}' to run the exported graph, got: {error}"
        ) from error


def _faces(outputs: Outputs, anchors: AnchorSpec, place: Letterbox, threshold: float) -> Faces:
    return postprocess(
        outputs,
        anchors,
        place,
        score_threshold=threshold,
        nms_threshold=NMS_THRESHOLD,
        max_faces=None,
    )


def _clear_threshold(outputs: Outputs) -> float:
    """Score in the widest gap between neighbours in rank, so that rounding lets none cross it."""
    logits = np.concatenate(
        [value.reshape(-1) for name, value in outputs.items() if name.startswith("logit")]
    )
    ranked = np.sort(logits)[::-1][CANDIDATES]
    widest = int(np.argmax(ranked[:-1] - ranked[1:]))
    middle = float(ranked[widest : widest + 2].mean())
    return 1 / (1 + math.exp(min(-middle, LARGEST_EXPONENT)))
