"""A loaded model with what is around it: pictures → frames → outputs → faces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeface.batching import frame_buffer, full_batches, one_of
from edgeface.bundle import Bundle
from edgeface.devicepicture import DevicePicture
from edgeface.errors import InvalidImageError
from edgeface.faces import Faces
from edgeface.lanes import Lane
from edgeface.postprocess import postprocess
from edgeface.preprocess import (
    InputSize,
    Letterbox,
    Size,
    letterbox,
    place,
    sufficient_size,
)
from edgeface.runtimes.base import DeviceRuntime, Outputs, Runtime
from edgeface.tiling import Pixels


@dataclass(eq=False)
class Pipeline:
    """Finds all faces of pictures, or of parts of them.

    Attributes:
        runtime: the loaded model.
        backend: its backend's name.
        bundle: the model.
        allowed: (width, height) pairs of frames that a static model accepts; empty: any.
        batch: frames of one size that the backend computes faster together than one by one.
        input_size: as ``Detector`` takes it.
        min_face: see ``sufficient_size``.
        score_threshold: only scores above it, 0..1.
        nms_threshold: of two boxes whose IoU is above it, the better one stays, 0..1.
    """

    runtime: Runtime
    backend: str
    bundle: Bundle
    allowed: Sequence[Size]
    batch: int
    input_size: InputSize
    min_face: int | None
    score_threshold: float
    nms_threshold: float

    def look(self, pictures: Sequence[Pixels], lane: Lane) -> list[Faces]:
        """Find all faces of each picture, in batches where the backend gains by it.

        Raises:
            InvalidImageError: a picture in the memory of a GPU that the backend does not run on.
            InferenceError: the backend failed.
        """
        if len(pictures) < self.batch or self.batch == 1:
            return [self._look_once(picture, lane) for picture in pictures]
        found: dict[int, Faces] = {}
        places = [self._place(picture) for picture in pictures]
        sizes = [(placed.network_width, placed.network_height) for placed in places]
        for group in full_batches(sizes, self.batch):
            some = [pictures[number] for number in group]
            in_memory = [each for each in some if not isinstance(each, DevicePicture)]
            if len(some) == len(in_memory) == self.batch:
                faces = self._look_together(in_memory, sizes[group[0]], lane)
            else:
                faces = [self._look_once(picture, lane) for picture in some]
            found |= zip(group, faces, strict=True)
        return [found[number] for number in range(len(pictures))]

    def _look_once(self, picture: Pixels, lane: Lane) -> Faces:
        started = time.perf_counter()
        if isinstance(picture, DevicePicture):
            infer, placed = self._prepare_on_device(picture)
        else:
            infer, placed = self._prepare(picture, lane)
        preprocessed = time.perf_counter()
        outputs = infer()
        inferred = time.perf_counter()
        faces = self._faces(outputs, placed, lane)
        lane.spend(started, preprocessed, inferred, time.perf_counter())
        return faces

    def _prepare(
        self, picture: NDArray[np.uint8], lane: Lane
    ) -> tuple[Callable[[], Outputs], Letterbox]:
        frame, placed = self._letterbox(picture, lane.buffer)
        if not np.may_share_memory(frame, picture):
            lane.buffer = frame
        return partial(self.runtime.infer, frame), placed

    def _prepare_on_device(self, picture: DevicePicture) -> tuple[Callable[[], Outputs], Letterbox]:
        """The GPU's own letterbox is part of its inference."""
        placed = self._place(picture)
        size = placed.network_width, placed.network_height
        there, pad_value = self._runtime_on_device(), self.bundle.pad_value
        return partial(there.infer_picture, picture, placed.content, size, pad_value), placed

    def _look_together(
        self, pictures: Sequence[NDArray[np.uint8]], size: Size, lane: Lane
    ) -> list[Faces]:
        """Find all faces of pictures whose frames have one size."""
        started = time.perf_counter()
        frames = frame_buffer((len(pictures), size[1], size[0], 3), lane.batch)
        lane.batch = frames
        places = []
        for number, picture in enumerate(pictures):
            slot = frames[number : number + 1]
            frame, placed = self._letterbox(picture, slot)
            if not np.may_share_memory(frame, slot):
                slot[...] = frame
            places.append(placed)
        preprocessed = time.perf_counter()
        outputs = self.runtime.infer(frames)
        inferred = time.perf_counter()
        faces = [
            self._faces(one_of(outputs, number), placed, lane)
            for number, placed in enumerate(places)
        ]
        lane.spend(started, preprocessed, inferred, time.perf_counter())
        return faces

    def _place(self, picture: Pixels) -> Letterbox:
        height, width = picture.shape[:2]
        size = sufficient_size(width, height, self.input_size, self.min_face)
        return place(width, height, size, self.bundle.anchors.max_stride, self.allowed)

    def _letterbox(
        self, picture: NDArray[np.uint8], out: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.uint8], Letterbox]:
        height, width = picture.shape[:2]
        return letterbox(
            picture,
            sufficient_size(width, height, self.input_size, self.min_face),
            stride=self.bundle.anchors.max_stride,
            pad_value=self.bundle.pad_value,
            allowed=self.allowed,
            out=out,
        )

    def _faces(self, outputs: Outputs, placed: Letterbox, lane: Lane) -> Faces:
        return postprocess(
            outputs,
            self.bundle.anchors,
            placed,
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_faces=None,
            faults=lane.faults,
        )

    def _runtime_on_device(self) -> DeviceRuntime:
        if isinstance(self.runtime, DeviceRuntime):
            return self.runtime
        raise InvalidImageError(
            f"expected a picture in the memory of the CPU for the backend '{self.backend}', got "
            "one in that of a GPU; copy it (tensor.cpu().numpy(), cupy.asnumpy(array)), or take "
            "the backend 'tensorrt'"
        )
