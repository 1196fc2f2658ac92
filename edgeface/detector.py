"""The facade: picture → letterbox → runtime → faces."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from edgeface.batching import by_shape
from edgeface.bundle import Bundle, check_precision, load_bundle
from edgeface.devicepicture import device_picture, is_device_array
from edgeface.errors import (
    EdgeFaceError,
    InferenceError,
    InvalidOptionError,
    NumericalError,
)
from edgeface.faces import DEFAULT_SCORE_THRESHOLD, Faces
from edgeface.hardware import host
from edgeface.imageio import Picture, check_color, read_image
from edgeface.lanes import Lane, Lanes
from edgeface.pipeline import Pipeline
from edgeface.preprocess import check_input_size
from edgeface.runtimes.base import backend as find_backend
from edgeface.startup import Explanation, start
from edgeface.tiling import Pixels, Region, check_region, merge, regions, tile_size

if TYPE_CHECKING:
    from edgeface.cameras import Cameras
    from edgeface.capture import Watchdog
    from edgeface.stream import Stream
    from edgeface.tracking import Tracker
    from edgeface.video import VideoSource


MODES = ("latency", "throughput")


class Detector:
    """Finds faces, with five landmarks each.

    Calls from several threads are safe: in mode "latency" they take turns, in "throughput" as many
    pictures as there are ``threads`` are looked at at the same time. Where "auto" chose the backend
    and it fails on a frame, the next best takes over, with one warning.

    Args:
        backend: "auto" takes what ``edgeface.tune`` measured as the fastest here, or else what
            usually is; "onnxruntime", "openvino", "tflite", "tensorrt", "tensorrt-rtx" and those
            of plug-ins are taken as named or refused, never replaced.
        model: a shipped model's name, the folder of a bundle, or a ``Bundle``.
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
        threads: worker threads; None: in mode "latency" as many as ``edgeface.tune`` measured to be
            the fastest, or else the big cores that this process may use, at most 4; in
            "throughput" all big cores.
        mode: "latency" looks at one picture at a time, with all threads: the shortest wait for one
            camera. "throughput" looks at one picture per thread, for callers with several
            cameras, threads or lists.

    Attributes:
        bundle: the model.
        profile: milliseconds of the last picture's stages: read, preprocess, infer, postprocess;
            of pictures that were computed together, the mean.
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
        model: str | Path | Bundle = "retinaface_mobilenet025",
        precision: str = "auto",
        input_size: int | tuple[int, int] | None = 640,
        score_threshold: float = DEFAULT_SCORE_THRESHOLD,
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
        usual = None if mode == "latency" else host().big_cores
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
        self._pool: ThreadPoolExecutor | None = None
        self._backend, self._precision = backend, precision
        self._broken: dict[str, str] = {}
        self._pipeline: Pipeline | None = self._start()

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
                (H, W, 4), or a PIL picture; a list or tuple of such, of which pictures of one size
                are computed together where the backend gains by it. It is never written to. With
                "tensorrt" and "tensorrt-rtx" also such an array in the memory of the GPU, by
                ``__cuda_array_interface__`` or DLPack: it is letterboxed there, without a copy.
            color: channel order of arrays: "bgr" or "rgb".

        Returns:
            Faces in pixels of the picture, best first, of length 0 where there are none; a list
            of them, in the same order, for a list.

        Raises:
            InvalidImageError: no picture that can be read, or one in the memory of a GPU that the
                backend does not run on; of a list, it says which.
            InvalidOptionError: unknown color.
            InferenceError: the backend failed, or the detector is closed.
        """
        check_color(color)
        if isinstance(image, (list, tuple)):
            return self._detect_all(image, color)
        [faces] = self._detect([image], color, [None])
        return faces

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
        from edgeface.stream import open_stream

        return open_stream(
            self,
            source,
            mode,
            color=color,
            track=track,
            realtime=realtime,
            watchdog=watchdog,
        )

    def cameras(
        self,
        sources: Mapping[str, VideoSource],
        mode: str = "latest",
        *,
        color: str = "bgr",
        track: bool | Mapping[str, Tracker] = False,
        realtime: bool | None = None,
        watchdog: Watchdog | None = None,
    ) -> Cameras:
        """Find the faces of the frames of several cameras on this one model.

        ``for result in detector.cameras({"door": 0, "yard": "rtsp://..."}): result.camera``, or
        ``async for``; see ``Cameras``. They take turns, each with its newest frame; in the
        detector's mode "throughput" as many at the same time as there are ``threads``.

        Args:
            sources: by name, what ``stream`` takes. Frames that a producer of your own hands over
                are an iterable as well: ``iter(queue.get, None)``.
            mode: see ``stream``.
            color: see ``stream``.
            track: give faces ``track_ids`` that are the camera's own: True, or a ``Tracker`` with
                options of its own for each camera that is to have one.
            realtime: see ``stream``.
            watchdog: see ``stream``.

        Raises:
            InvalidImageError: a file is missing.
            InvalidOptionError: unknown mode or color, no source, or trackers that do not fit.
        """
        from edgeface.cameras import open_cameras

        return open_cameras(
            self,
            sources,
            mode,
            turns=self._streams,
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
                lane.buffer = lane.batch = None
            if self._pipeline is not None:
                self._pipeline.runtime.close()
            self._pipeline = None
        with self._change:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({self._explanation.backend!r}, model={self.bundle.name!r})"

    @property
    def _streams(self) -> int:
        """Pictures that are looked at at the same time."""
        return self._threads or 1 if self._mode == "throughput" else 1

    def _start(self) -> Pipeline:
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
        backend, precision = started.chosen.backend, started.artifact.precision
        batch = find_backend(backend).batches.get(precision, 1)
        self._explanation = Explanation(
            model=self.bundle.name,
            backend=backend,
            why=started.why,
            precision=precision,
            input_size=self._input_size,
            threads=started.threads,
            mode=self._mode,
            batch=batch,
            facts=started.runtime.describe(),
            others=started.others,
            measured=started.measured,
        )
        return Pipeline(
            runtime=started.runtime,
            backend=backend,
            bundle=self.bundle,
            allowed=started.artifact.input_sizes,
            batch=batch,
            input_size=self._input_size,
            min_face=self._min_face,
            score_threshold=self._score_threshold,
            nms_threshold=self._nms_threshold,
        )

    def _fall_back(self, failed: Pipeline, error: InferenceError) -> None:
        """Go on with the next backend after one that failed, or raise its error."""
        with self._change:
            self.faults[type(error)] += 1
            if self._pipeline is not failed:
                return
            if self._backend != "auto":
                raise error
            self._broken[failed.backend] = str(error)
            try:
                self._pipeline = self._start()
            except EdgeFaceError:
                raise error from None
            failed.runtime.close()

    def _detect_all(self, images: Sequence[Picture], color: str) -> list[Faces]:
        """Find the faces of each picture of a list, a few at a time in as many lanes as we have."""
        groups = by_shape(images, self._open().batch)
        found = [Faces.empty()] * len(images)

        def detect(group: list[int]) -> None:
            some = self._detect([images[number] for number in group], color, group)
            for number, faces in zip(group, some, strict=True):
                found[number] = faces

        if self._streams == 1:
            for group in groups:
                detect(group)
        else:
            futures = self._submit(detect, groups)
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
        return found

    def _submit(
        self, detect: Callable[[list[int]], None], groups: Sequence[list[int]]
    ) -> list[Future[None]]:
        self._check_process()
        with self._change:
            self._open()
            self._pool = self._pool or ThreadPoolExecutor(self._streams, "edgeface-detect")
            return [self._pool.submit(detect, group) for group in groups]

    def _detect(
        self, images: Sequence[Picture], color: str, numbers: Sequence[int | None]
    ) -> list[Faces]:
        """Find the faces of a few pictures; their numbers in a list are for errors."""
        started = time.perf_counter()
        pictures = [self._read(*each, color) for each in zip(images, numbers, strict=True)]
        read = time.perf_counter()
        self._check_process()
        with self._lanes.take() as lane:
            lane.begin()
            lane.profile["read"] = (read - started) * 1e3
            looked_at = [part.of(picture) for picture, parts in pictures for part in parts]
            looked = iter(self._look(looked_at, lane))
            began = time.perf_counter()
            found = [
                merge(
                    [(part, next(looked)) for part in parts],
                    nms_threshold=self._nms_threshold,
                    min_face=self._min_face,
                    max_faces=self._max_faces,
                )
                for _, parts in pictures
            ]
            lane.profile["postprocess"] += (time.perf_counter() - began) * 1e3
            self.profile = {stage: spent / len(images) for stage, spent in lane.profile.items()}
            faults = lane.faults
        if faults:
            self._tell(faults)
        return found

    def _read(self, image: Picture, number: int | None, color: str) -> tuple[Pixels, list[Region]]:
        """Return a picture and the parts of it to look at."""
        try:
            picture = (
                device_picture(image, color) if is_device_array(image) else read_image(image, color)
            )
            height, width = picture.shape[:2]
            return picture, regions(width, height, self._roi, self._tile)
        except EdgeFaceError as error:
            if number is None:
                raise
            raise type(error)(f"picture {number} of the list: {error}") from error

    def _look(self, pictures: Sequence[Pixels], lane: Lane) -> list[Faces]:
        """Find all faces of pictures or parts of them, on the first backend that does."""
        while True:
            pipeline = self._open()
            try:
                return pipeline.look(pictures, lane)
            except InferenceError as error:
                self._fall_back(pipeline, error)

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            raise InferenceError("expected an open detector, got a closed one; make a new one")
        return self._pipeline

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise InferenceError(
                "expected the process that made the detector, got a fork of it, in which native "
                "libraries hang; make the detector after the fork, or use the start method 'spawn'"
            )

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
                stacklevel=2,
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
