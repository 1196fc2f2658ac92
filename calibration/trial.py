"""An artifact that no bundle holds yet, run behind the SDK's own pre- and postprocess."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeface.anchors import AnchorSpec
from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD
from edgeface.faces import Faces
from edgeface.postprocess import postprocess
from edgeface.preprocess import InputSize, Letterbox, letterbox
from edgeface.runtimes.base import Outputs, RuntimeOptions, load

Picture = NDArray[np.uint8]

# Who runs an artifact of that format here; ONNX Runtime is the reference for TensorRT's graph.
RUNNERS = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "tflite": "tflite",
    "tensorrt": "onnxruntime",
}


@dataclass(frozen=True)
class Geometry:
    """What a model needs around its graph; a bundle and a net both give it.

    Attributes:
        anchors: what the outputs are decoded with.
        pad_value: BGR value outside the picture.
    """

    anchors: AnchorSpec
    pad_value: tuple[int, int, int]


class Trial:
    """A loaded artifact: a callable from BGR uint8 (H, W, 3) to Faces, at evaluation settings.

    Args:
        content: the artifact.
        backend: name of the backend that runs it, with the artifact's own arithmetic.
        geometry: anchors and padding of the model.
        input_size: long side in pixels to which pictures are shrunk; None keeps their size.
        input_sizes: (width, height) pairs that a static artifact accepts; empty: any.
        batch: frames that a static artifact takes at once; None: any number.

    Raises:
        MissingDependencyError: the backend's package is not installed.
        BackendUnavailableError: it does not run on this machine.
        ModelIntegrityError: it rejects the artifact.
    """

    def __init__(
        self,
        content: bytes,
        backend: str,
        geometry: Geometry,
        input_size: InputSize = 640,
        input_sizes: Sequence[tuple[int, int]] = (),
        batch: int | None = None,
    ) -> None:
        self._geometry = geometry
        self._input_size = input_size
        self._allowed = tuple(input_sizes)
        key = f"trial-{hashlib.sha256(content).hexdigest()}"
        options = RuntimeOptions(
            None, self._allowed, exact=True, threads=1, cache_key=key, batch=batch
        )
        self._runtime = load(backend, content, options)
        self.version = self._runtime.describe()["version"]

    def __call__(self, image: Picture) -> Faces:
        """Detect the faces of one picture."""
        frame, placed = self.place(image)
        return postprocess(
            self.infer(frame),
            self._geometry.anchors,
            placed,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            max_faces=MAX_FACES,
        )

    def place(self, image: Picture) -> tuple[Picture, Letterbox]:
        """Put a picture into a network frame (1, H, W, 3)."""
        return letterbox(
            image,
            self._input_size,
            stride=self._geometry.anchors.max_stride,
            pad_value=self._geometry.pad_value,
            allowed=self._allowed,
        )

    def infer(self, frame: Picture) -> Outputs:
        """Run the graph on a frame; the outputs are valid until the next call."""
        return self._runtime.infer(frame)

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runtime.close()
