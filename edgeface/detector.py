"""The facade: picture → letterbox → runtime → faces."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from edgeface.bundle import check_precision, load_bundle
from edgeface.devicepicture import DevicePicture, device_picture, is_device_array
from edgeface.errors import (
    EdgeFaceError,
    InferenceError,
    InvalidImageError,
    InvalidOptionError,
    NumericalError,
)
from edgeface.faces import Faces
from edgeface.hardware import host
from edgeface.imageio import Picture, check_color, read_image
from edgeface.lanes import Lane, Lanes
from edgeface.postprocess import postprocess
from edgeface.preprocess import check_input_size, letterbox, place, sufficient_size
from edgeface.runtimes.base import DeviceRuntime, Outputs, Runtime
from edgeface.runtimes.base import backend as find_backend
from edgeface.startup import Explanation, start
from edgeface.stream import Stream, open_stream
from edgeface.tiling import Pixels, check_region, merge, regions, tile_size
from edgeface.video import VideoSource

if TYPE_CHECKING:
    from edgeface.capture import Watchdog
    from edgeface.tracking import Tracker


MODES = ("latency", "throughput")


class Detector:
    """Finds faces, with five landmarks each.

    Calls from several threads are safe: in mode "latency" they take turns, in "throughput" as many
    pictures as there are ``threads`` are looked at at the same time. Where "auto" chose the backend
    and it fails on a frame, the next best takes over, with one warning.

    Args:
        backend: "auto" takes the best that runs here; "onnxruntime", "openvino", "tflite",
            "tensorrt" and "tensorrt-rtx" are taken as named or refused, never replaced.
        model: a shipped model's name, or the folder of a bundle.
        precision: "auto" takes the fastest artifact that the model has for the backend, and lets
            the backend lower fp32 to bf16 or fp16; "fp32" is exact, "fp16" and "int8" as stored.
        input_size: long side in pixels to which pictures are shrunk, never enlarged; (width,
            height) of the network's frame, multiples of its stride; None keeps each picture's
            own size.
        score_threshold: only faces that score above it, 0..1.
        nms_threshold: of two boxes whose IoU is above it, the better one stays, 0..1.
        max_faces: keep at most that many of the best; None: all.
        min_face: leave out faces whose box has a side below that many pixels of the picture. The
            picture is shrunk further than to input_size (but not where that is a pair) as long as
            such faces stay easy to find: the larger min_face, the faster.
        roi: (x, y, width, height) in pixels: look at that part of each picture only.
        tile: look at overlapping tiles of input_size in the picture's own resolution as well, for
            small faces in large pictures; takes as many times longer as there are tiles.
        threads: worker threads; None: the big cores that this process may use, in mode "latency"
            at most 4.
        mode: "latency" looks at one picture at a time, with all threads: the shortest wait for one
            camera. "throughput" looks at one picture per thread: more frames a second for callers
            with several cameras, threads or lists.

    Attributes:
        bundle: the model.
        profile: milliseconds of the last picture's stages: read, preprocess, infer, postprocess.
        faults: how many frames met an ``InferenceError`` or a ``NumericalError`` so far.

    Raises:
        InvalidOptionError: an option has a value that it does not accept.
        ModelNotFoundError: no such model, or none of its artifacts fits backend and precision.
        ModelIntegrityError: the model is damaged.
        MissingDependencyError: the named backend's package is not installed.
        BackendUnavailableError: the named backend, or with "auto" every one, does not run here.
    """

    def __init__(
        self,
        backend: str = "auto",
        *,
        model: str | Path = "retinaface_mobilenet025",
        precision: str = "auto",
        input_size: int | tuple[int, int] | None = 640,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        max_faces: int | None = None,
        min_face: int | None = None,
        roi: tuple[int, int, int, int] | None = None,
        tile: bool = False,
        threads: int | None = None,
        mode: str = "latency",
    ) -> None:
        if backend != "auto":
            find_backend(backend)
        check_precision(precision)
        self._score_threshold = _check_fraction("score_threshold", score_threshold)
        self._nms_threshold = _check_fraction("nms_threshold", nms_threshold)
        self._max_faces = _check_count("max_faces", max_faces)
        self._min_face = _check_count("min_face", min_face)
        self._roi = check_region(roi)
        if mode not in MODES:
            raise InvalidOptionError(f"expected mode 'latency' or 'throughput', got {mode!r}")
        usual = host().threads if mode == "latency" else host().big_cores
        self._threads = _check_count("threads", threads) or usual
        self._mode = mode
        self.bundle = load_bundle(model)
        self._input_size = check_input_size(input_size, self.bundle.anchors.max_stride)
        self._tile = tile_size(self._input_size) if tile else None
        self.profile: dict[str, float] = {}
        self.faults: Counter[type[Exception]] = Counter()
        self._process = os.getpid()
        self._lanes = Lanes(self._streams)
        self._change = threading.Lock()
        self._backend, self._precision = backend, precision
        self._broken: dict[str, str] = {}
        self._runtime: Runtime | None = self._start()

    @overload
    def __call__(
        self, image: list[Picture] | tuple[Picture, ...], color: str = "bgr"
    ) -> list[Faces]: ...
    @overload
    def __call__(self, image: Picture, color: str = "bgr") -> Faces: ...
    def __call__(
        self, image: Picture | list[Picture] | tuple[Picture, ...], color: str = "bgr"
    ) -> Faces | list[Faces]:
        """Find the faces of a picture, or of each picture of a list.

        Args:
            image: path of a picture file, its bytes, a uint8 array (H, W), (H, W, 1), (H, W, 3) or
                (H, W, 4), or a PIL picture; a list or tuple of such. It is never written to. With
                "tensorrt" and "tensorrt-rtx" also such an array in the memory of the GPU, by
                ``__cuda_array_interface__`` or DLPack: it is letterboxed there, without a copy.
            color: channel order of arrays: "bgr" or "rgb".

        Returns:
            Faces in pixels of the picture, best first, of length 0 where there are none; a list
            of them for a list.

        Raises:
            InvalidImageError: no picture that can be read, or one in the memory of a GPU that the
                backend does not run on.
            InvalidOptionError: unknown color.
            InferenceError: the backend failed, or the detector is closed.
        """
        check_color(color)
        if isinstance(image, (list, tuple)):
            return [self._detect(one, color) for one in image]
        return self._detect(image, color)

    def stream(
        self,
        source: VideoSource,
        mode: str = "latest",
        *,
        color: str = "bgr",
        track: bool | Tracker | None = None,
        realtime: bool | None = None,
        watchdog: Watchdog | None = None,
    ) -> Stream:
        """Find the faces of each frame of a camera, network stream, file or iterable.

        ``for result in detector.stream(0): result.faces``, or ``async for``; see ``Stream``.

        Args:
            source: camera index or device file; URL (rtsp://, http://, ...); path of a video or an
                animated GIF; or an iterable of what the detector takes.
            mode: "latest" skips to the newest frame and counts the dropped ones, so that an app
                never lags behind; "every" gives all in order and lets the source wait.
            color: channel order of arrays in an iterable: "bgr" or "rgb".
            track: give faces ``track_ids``: True, or a ``Tracker`` with options of its own.
            realtime: play recordings at their own pace; None: in mode "latest".
            watchdog: when a camera or live URL counts as lost; it is reopened.

        Raises:
            InvalidImageError: the file is missing.
            InvalidOptionError: unknown mode or color, or no source.
        """
        return open_stream(
            self,
            source,
            mode,
            color=color,
            track=track,
            realtime=realtime,
            watchdog=watchdog,
        )

    def explain(self) -> Explanation:
        """Say which backend and artifact run, with which options, and why not the others."""
        return self._explanation

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        if os.getpid() != self._process:
            return
        with self._lanes.take_all() as lanes:
            for lane in lanes:
                lane.buffer = None
            if self._runtime is not None:
                self._runtime.close()
            self._runtime = None

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({self._explanation.backend!r}, model={self.bundle.name!r})"

    @property
    def _streams(self) -> int:
        """Pictures that are looked at at the same time."""
        return self._threads if self._mode == "throughput" else 1

    def _start(self) -> Runtime:
        """Load the model on the named backend, or on the best that is not known to be broken."""
        started = start(
            self.bundle,
            self._backend,
            self._precision,
            self._input_size,
            self._threads,
            self._broken,
            self._streams,
        )
        self._allowed = started.artifact.input_sizes
        self._explanation = Explanation(
            model=self.bundle.name,
            backend=started.chosen.backend,
            why=started.chosen.reason if self._backend == "auto" else "as named",
            precision=started.artifact.precision,
            input_size=self._input_size,
            threads=self._threads,
            mode=self._mode,
            facts=started.runtime.describe(),
            others=started.others,
        )
        return started.runtime

    def _fall_back(self, failed: Runtime, error: InferenceError) -> None:
        """Go on with the next backend after one that failed, or raise its error."""
        with self._change:
            self.faults[type(error)] += 1
            if self._runtime is not failed:
                return
            if self._backend != "auto":
                raise error
            self._broken[self._explanation.backend] = str(error)
            try:
                self._runtime = self._start()
            except EdgeFaceError:
                raise error from None
            failed.close()

    def _detect(self, image: Picture, color: str) -> Faces:
        started = time.perf_counter()
        picture = (
            device_picture(image, color) if is_device_array(image) else read_image(image, color)
        )
        read = time.perf_counter()
        if os.getpid() != self._process:
            raise InferenceError(
                "expected the process that made the detector, got a fork of it, in which native "
                "libraries hang; make the detector after the fork, or use the start method 'spawn'"
            )
        with self._lanes.take() as lane:
            height, width = picture.shape[:2]
            parts = regions(width, height, self._roi, self._tile)
            profile = dict.fromkeys(("read", "preprocess", "infer", "postprocess"), 0.0)
            profile["read"] = (read - started) * 1e3
            found = [(part, self._look(part.of(picture), lane, profile)) for part in parts]
            self.profile = profile
        return merge(
            found,
            nms_threshold=self._nms_threshold,
            min_face=self._min_face,
            max_faces=self._max_faces,
        )

    def _look(self, picture: Pixels, lane: Lane, profile: dict[str, float]) -> Faces:
        """Find all faces of a picture or a part of one, on the first backend that does."""
        while True:
            runtime = self._runtime
            if runtime is None:
                raise InferenceError("expected an open detector, got a closed one; make a new one")
            try:
                return self._look_once(runtime, picture, lane, profile)
            except InferenceError as error:
                self._fall_back(runtime, error)

    def _look_once(
        self, runtime: Runtime, picture: Pixels, lane: Lane, profile: dict[str, float]
    ) -> Faces:
        """Find all faces of a picture or a part of one, and add to the profile."""
        started = time.perf_counter()
        height, width = picture.shape[:2]
        size = sufficient_size(width, height, self._input_size, self._min_face)
        stride, pad_value = self.bundle.anchors.max_stride, self.bundle.pad_value
        infer: Callable[[], Outputs]
        if isinstance(picture, DevicePicture):
            placed = place(width, height, size, stride, self._allowed)
            frame_size = placed.network_width, placed.network_height
            there = self._runtime_on_device(runtime)
            infer = partial(there.infer_picture, picture, placed.content, frame_size, pad_value)
        else:
            frame, placed = letterbox(
                picture,
                size,
                stride=stride,
                pad_value=pad_value,
                allowed=self._allowed,
                out=lane.buffer,
            )
            if not np.may_share_memory(frame, picture):
                lane.buffer = frame
            infer = partial(runtime.infer, frame)
        preprocessed = time.perf_counter()
        outputs = infer()
        inferred = time.perf_counter()
        faults: Counter[type[Exception]] = Counter()
        faces = postprocess(
            outputs,
            self.bundle.anchors,
            placed,
            score_threshold=self._score_threshold,
            nms_threshold=self._nms_threshold,
            max_faces=None,
            faults=faults,
        )
        if faults:
            self._tell(faults)
        profile["preprocess"] += (preprocessed - started) * 1e3
        profile["infer"] += (inferred - preprocessed) * 1e3
        profile["postprocess"] += (time.perf_counter() - inferred) * 1e3
        return faces

    def _tell(self, faults: Counter[type[Exception]]) -> None:
        """Count frames whose outputs were not finite, and warn of the first."""
        with self._change:
            known = self.faults[NumericalError]
            self.faults.update(faults)
        if not known:
            warnings.warn(
                NumericalError(
                    "expected finite outputs of the network, got NaN or infinity, and left those "
                    f"anchors out (backend '{self._explanation.backend}'); Detector.faults counts "
                    "such frames: try precision='fp32', or another backend"
                ),
                stacklevel=3,
            )

    def _runtime_on_device(self, runtime: Runtime) -> DeviceRuntime:
        if isinstance(runtime, DeviceRuntime):
            return runtime
        raise InvalidImageError(
            "expected a picture in the memory of the CPU for the backend "
            f"'{self._explanation.backend}', got one in that of a GPU; copy it "
            "(tensor.cpu().numpy(), cupy.asnumpy(array)), or take the backend 'tensorrt'"
        )


def _check_fraction(name: str, value: float) -> float:
    if not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
        raise InvalidOptionError(f"expected {name} between 0 and 1, got {value!r}")
    return float(value)


def _check_count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidOptionError(f"expected {name} to be a positive integer or None, got {value!r}")
    return int(value)
