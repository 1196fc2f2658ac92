"""Detectors of others, from the ONNX files that their users run, as picture to ``Faces``.

Each takes a frame as its own code takes it, and is decoded as its own code decodes it: YuNet after
OpenCV's FaceDetectorYN, RetinaFace after the PyTorch repositories' ``convert_to_onnx``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.anchors import AnchorLevel, AnchorSpec, level_priors
from edgeface.bench.settings import Settings
from edgeface.errors import ModelIntegrityError, ModelNotFoundError
from edgeface.faces import Faces
from edgeface.nms import nms
from edgeface.onnxfile import has_external_data
from edgeface.postprocess import postprocess
from edgeface.preprocess import InputSize, Letterbox, content_size, letterbox
from edgeface.runtimes.base import import_vendor

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Shapes = Mapping[str, Sequence[int | str | None]]

STRIDES = (8, 16, 32)
CANDIDATES = 5000
YUNET_PARTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
RETINAFACE_PARTS = {4: "delta", 2: "classes", 10: "landmark"}
RETINAFACE_ANCHORS = AnchorSpec(
    (AnchorLevel(8, (16, 32)), AnchorLevel(16, (64, 128)), AnchorLevel(32, (256, 512)))
)
ONNX_RUNTIME, OPENCV = "onnxruntime", "opencv"


@dataclass(frozen=True)
class Layout:
    """A family of graphs whose outputs can be read.

    Attributes:
        name: of the family.
        outputs: what they look like, in words.
        recognises: whether outputs of these shapes are theirs.
        mean: BGR value that is subtracted from the frame, and stands outside the picture.
        decode: from outputs by name, the frame's place and the settings to faces.
    """

    name: str
    outputs: str
    recognises: Callable[[Shapes], bool]
    mean: tuple[int, int, int]
    decode: Callable[[Mapping[str, Floats], Letterbox, Settings], Faces]


class OnnxPeer:
    """A peer on ONNX Runtime, with the settings of edgeface's own backend.

    Attributes:
        profile: milliseconds of the last picture's stages, as ``Detector.profile``.
    """

    def __init__(self, path: Path, threads: int, settings: Settings) -> None:
        self._session = open_session(path, threads)
        self._outputs = [node.name for node in self._session.get_outputs()]
        [node] = self._session.get_inputs()
        self._input = node.name
        self._layout = find_layout(path, _shapes(self._session))
        self._frame: InputSize = fixed_size(node.shape) or settings.input_size
        self._tensor = np.empty((1, 3, 0, 0), np.float32)
        self._settings = settings
        self.profile: dict[str, float] = {}

    def __call__(self, image: Image) -> Faces:
        """Find the faces of a picture, BGR uint8 (H, W, 3)."""
        began = time.perf_counter()
        layout = self._layout
        frame, placed = letterbox(image, self._frame, stride=STRIDES[-1], pad_value=layout.mean)
        tensor = self._planes(frame[0])
        ready = time.perf_counter()
        values = self._session.run(self._outputs, {self._input: tensor})
        inferred = time.perf_counter()
        outputs = dict(zip(self._outputs, values, strict=True))
        faces = layout.decode(outputs, placed, self._settings)
        self.profile = {
            "read": 0.0,
            "preprocess": (ready - began) * 1e3,
            "infer": (inferred - ready) * 1e3,
            "postprocess": (time.perf_counter() - inferred) * 1e3,
        }
        return faces

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _planes(self, frame: Image) -> Floats:
        """float32 (1, 3, H, W) less the mean; several times as fast as OpenCV's blobFromImage."""
        shape = (1, 3, *frame.shape[:2])
        if self._tensor.shape != shape:
            self._tensor = np.empty(shape, np.float32)
        planes = zip(cv2.split(frame), self._layout.mean, self._tensor[0], strict=True)
        for plane, mean, out in planes:
            np.subtract(plane, np.float32(mean), out=out)
        return self._tensor


class OpenCvYuNet:
    """YuNet as OpenCV runs it, in ``cv2.FaceDetectorYN``, which tells no stages."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._settings = settings
        self._size = (0, 0)
        self.profile: dict[str, float] = {}
        kept = settings.max_faces or CANDIDATES
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(path), "", (32, 32), settings.score_threshold, settings.nms_threshold, kept
            )
        except cv2.error as error:
            raise _unreadable(path, error) from error

    def __call__(self, image: Image) -> Faces:
        """Find the faces of a picture, BGR uint8 (H, W, 3)."""
        height, width = image.shape[:2]
        size = content_size(width, height, self._settings.input_size)
        if size != (width, height):
            image = np.asarray(cv2.resize(image, size), np.uint8)
        if size != self._size:
            self._detector.setInputSize(size)
            self._size = size
        found: Any = self._detector.detect(image)[1]
        if found is None:
            return Faces.empty()
        scale = np.array([size[0] / width, size[1] / height], np.float32)
        points = found[:, :14].reshape(-1, 7, 2) / scale
        boxes = np.hstack([points[:, 0], points[:, 0] + points[:, 1]])
        return Faces(boxes, found[:, 14], points[:, 2:])

    def close(self) -> None:
        """Nothing to free by hand."""


def open_peer(path: Path, runner: str, threads: int, settings: Settings) -> OnnxPeer | OpenCvYuNet:
    """Open a peer's file on ONNX Runtime or in OpenCV.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelIntegrityError: it is no ONNX file, or of no known layout.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    return OpenCvYuNet(path, settings) if runner == OPENCV else OnnxPeer(path, threads, settings)


def runners(path: Path) -> tuple[str, ...]:
    """What runs a file: ONNX Runtime, and OpenCV where it is a YuNet of fixed size.

    Raises:
        EdgeFaceError: see ``open_peer``.
    """
    session = open_session(path, threads=1)
    layout = find_layout(path, _shapes(session))
    fixed = fixed_size(session.get_inputs()[0].shape)
    return (OPENCV, ONNX_RUNTIME) if layout is YUNET and fixed else (ONNX_RUNTIME,)


def open_session(path: Path, threads: int) -> Any:
    """Open an ONNX file on the CPU; errors as in ``open_peer``."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = import_vendor("onnxruntime")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"expected the ONNX file of a detector, but {path} cannot be read ({error}); check the "
            "path"
        ) from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.inter_op_num_threads = 1
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        if has_external_data(data):
            raise ValueError("it keeps weights in other files")
        return onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unreadable(path, error) from error


def find_layout(path: Path, shapes: Shapes) -> Layout:
    """Tell the layout by the outputs.

    Raises:
        ModelIntegrityError: it is none of the known ones.
    """
    for layout in LAYOUTS:
        if layout.recognises(shapes):
            return layout
    known = "; ".join(f"{layout.name}: {layout.outputs}" for layout in LAYOUTS)
    raise ModelIntegrityError(
        f"expected a detector of a known layout ({known}), got {path} with the outputs "
        f"{', '.join(shapes)}; edgeface's own models go to --model"
    )


def fixed_size(shape: Sequence[int | str | None]) -> tuple[int, int] | None:
    """(width, height) of an input (N, 3, H, W), or None where they vary."""
    height, width = shape[2:]
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def decode_yunet(outputs: Mapping[str, Floats], placed: Letterbox, settings: Settings) -> Faces:
    """Decode YuNet as OpenCV's FaceDetectorYN does.

    Args:
        outputs: per stride ``cls_``, ``obj_`` (1, cells, 1), ``bbox_`` (1, cells, 4) and ``kps_``
            (1, cells, 10), one prior per cell at its top left corner, in units of the stride; the
            boxes' sizes are logarithms.
        placed: how the picture lies in the frame.
        settings: thresholds.
    """
    boxes, scores, points = [], [], []
    for stride in STRIDES:
        classes, objects = (outputs[f"{kind}_{stride}"].ravel() for kind in ("cls", "obj"))
        score = np.sqrt(classes.clip(0, 1) * objects.clip(0, 1))
        kept = np.flatnonzero(score > settings.score_threshold)
        rows, columns = np.divmod(kept, placed.network_width // stride)
        corner = np.stack([columns, rows], axis=1).astype(np.float32)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[kept]
        centre, half = (corner + box[:, :2]) * stride, np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.hstack([centre - half, centre + half]))
        scores.append(score[kept])
        offsets = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[kept]
        points.append((offsets + corner[:, None]) * np.float32(stride))
    scale = np.array([placed.scale_x, placed.scale_y], np.float32)
    confidence = np.concatenate(scores)
    if not len(confidence):
        return Faces.empty()
    found = (np.concatenate(boxes) / np.tile(scale, 2)).astype(np.float32)
    landmarks = (np.concatenate(points) / scale).astype(np.float32)
    best = nms(found, confidence, settings.nms_threshold)[: settings.max_faces]
    return Faces(found[best], confidence[best], landmarks[best])


def decode_retinaface(
    outputs: Mapping[str, Floats], placed: Letterbox, settings: Settings
) -> Faces:
    """Decode RetinaFace as the PyTorch repositories export it.

    Args:
        outputs: boxes (1, N, 4), background and face (1, N, 2), which softmax may have seen, and
            landmarks (1, N, 10), over all levels, finest first, told apart by their widths.
        placed: how the picture lies in the frame.
        settings: thresholds.
    """
    parts = {RETINAFACE_PARTS[value.shape[-1]]: value[0] for value in outputs.values()}
    parts["logit"] = _logits(parts.pop("classes"), settings.score_threshold)[:, None]
    levels: dict[str, Floats] = {}
    start = 0
    for level in RETINAFACE_ANCHORS.levels:
        end = start + len(level_priors(level, placed.network_height, placed.network_width))
        levels |= {
            f"{kind}_{level.stride}": value[None, start:end] for kind, value in parts.items()
        }
        start = end
    return postprocess(
        levels,
        RETINAFACE_ANCHORS,
        placed,
        score_threshold=settings.score_threshold,
        nms_threshold=settings.nms_threshold,
        max_faces=settings.max_faces,
    )


def _logits(classes: Floats, threshold: float) -> Floats:
    """Log odds of a face, worked out where it scores above the threshold, else -infinity."""
    if not np.allclose(classes[:16].sum(axis=1), 1, atol=1e-3):
        return np.asarray(classes[:, 1] - classes[:, 0], np.float32)
    logits = np.full(len(classes), -np.inf, np.float32)
    above = np.flatnonzero(classes[:, 1] > threshold)
    with np.errstate(divide="ignore"):
        logits[above] = np.log(classes[above, 1] / classes[above, 0]).clip(max=88)
    return logits


def _is_yunet(shapes: Shapes) -> bool:
    wanted = {f"{kind}_{stride}": size for kind, size in YUNET_PARTS.items() for stride in STRIDES}
    return {name: shape[-1] for name, shape in shapes.items()} == wanted


def _is_retinaface(shapes: Shapes) -> bool:
    return len(shapes) == 3 and {shape[-1] for shape in shapes.values()} == set(RETINAFACE_PARTS)


def _shapes(session: Any) -> dict[str, Sequence[int | str | None]]:
    return {node.name: node.shape for node in session.get_outputs()}


def _unreadable(path: Path, error: Exception) -> ModelIntegrityError:
    return ModelIntegrityError(
        f"expected the ONNX file of a detector in {path}, but it cannot be loaded "
        f"({' '.join(str(error).split())}); fetch or export it again"
    )


YUNET = Layout(
    "YuNet",
    "cls_, obj_, bbox_ and kps_ at strides 8, 16 and 32",
    _is_yunet,
    (0, 0, 0),
    decode_yunet,
)
RETINAFACE = Layout(
    "RetinaFace",
    "three outputs, (1, N, 4), (1, N, 2) and (1, N, 10), as convert_to_onnx of the PyTorch "
    "repositories writes them",
    _is_retinaface,
    (104, 117, 123),
    decode_retinaface,
)
LAYOUTS = (YUNET, RETINAFACE)
