"""Detectors of others, from the ONNX files that their users run: picture to ``Faces``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeface.bench.layouts import STRIDES, YUNET, Floats, Image, find_layout
from edgeface.bench.settings import Settings
from edgeface.errors import ModelIntegrityError, ModelNotFoundError
from edgeface.faces import Faces
from edgeface.onnxfile import has_external_data
from edgeface.preprocess import InputSize, content_size, letterbox
from edgeface.runtimes.base import import_vendor

CANDIDATES = 5000
ONNX_RUNTIME, OPENCV = "onnxruntime", "opencv"


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


def fixed_size(shape: Sequence[int | str | None]) -> tuple[int, int] | None:
    """(width, height) of an input (N, 3, H, W), or None where they vary."""
    height, width = shape[2:]
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _shapes(session: Any) -> dict[str, Sequence[int | str | None]]:
    return {node.name: node.shape for node in session.get_outputs()}


def _unreadable(path: Path, error: Exception) -> ModelIntegrityError:
    return ModelIntegrityError(
        f"expected the ONNX file of a detector in {path}, but it cannot be loaded "
        f"({' '.join(str(error).split())}); fetch or export it again"
    )
