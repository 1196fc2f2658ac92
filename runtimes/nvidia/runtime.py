"""A model on TensorRT or TensorRT-RTX: an engine, and its session, per range of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from edgeface.devicepicture import DevicePicture
from edgeface.errors import BackendUnavailableError, EdgeFaceError, InferenceError
from edgeface.runtimes.base import (
    Outputs,
    RuntimeOptions,
    backend,
    check_frames,
    closed,
)
from edgeface.runtimes.nvidia.cuda import OUT_OF_MEMORY, Cuda, CudaError, load_cuda
from edgeface.runtimes.nvidia.engines import Engine, open_engine
from edgeface.runtimes.nvidia.letterbox import Letterboxer
from edgeface.runtimes.nvidia.profiles import Profile, first_profile, profile_for
from edgeface.runtimes.nvidia.session import Session
from edgeface.runtimes.nvidia.vendor import Vendor, find_vendor

Size = tuple[int, int]
Color = tuple[int, int, int]


def probe(name: str) -> str:
    """Import a TensorRT library, look for driver and GPU, and return the library's version.

    Raises:
        MissingDependencyError: the library or cuda-python is not installed.
        BackendUnavailableError: it does not import; no driver, one too old, or no GPU.
    """
    vendor = find_vendor(name)
    load_cuda(backend(name).install).device()
    return vendor.version


def load(name: str, data: bytes, options: RuntimeOptions) -> TensorRt:
    """Build the engine of an ONNX graph, or take the kept one.

    Raises:
        MissingDependencyError: see ``probe``.
        BackendUnavailableError: see ``probe``; or the engine cannot be built or run here.
        ModelIntegrityError: the graph cannot be loaded, or breaks the graph contract.
    """
    vendor = find_vendor(name)
    cuda = load_cuda(backend(name).install)
    try:
        runtime = TensorRt(vendor, cuda, data, options)
        runtime.session(first_profile(options))
    except EdgeFaceError:
        raise
    except Exception as error:
        remedy = _remedy(error) or f"upgrade {name}, or choose another backend"
        raise BackendUnavailableError(
            f"expected {name} to start on the GPU, got: {error}; {remedy}"
        ) from error
    return runtime


class TensorRt:
    """Engines of one model on the first GPU."""

    def __init__(self, vendor: Vendor, cuda: Cuda, data: bytes, options: RuntimeOptions) -> None:
        self._vendor = vendor
        self._cuda = cuda
        self._data: bytes | None = data
        self._options = options
        self._device = cuda.device()
        self._letterboxer = Letterboxer(cuda, self._device)
        self._engines: dict[Profile, Engine] = {}
        self._sessions: dict[Profile, Session] = {}
        self._lock = Lock()

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph; see ``edgeface.runtimes.base.Runtime``."""
        check_frames(frames, self._options.input_sizes)
        return self._guarded(frames.shape, lambda session: session.infer(frames))

    def infer_picture(
        self, picture: DevicePicture, content: Size, frame: Size, pad_value: Color
    ) -> Outputs:
        """Run the graph; see ``edgeface.runtimes.base.DeviceRuntime``."""
        return self._guarded(
            (1, frame[1], frame[0], 3),
            lambda session: session.infer_picture(picture, content, frame, pad_value),
        )

    def session(self, profile: Profile) -> Session:
        """The session for a profile; the engine is built where it is not there yet."""
        with self._lock:
            if self._data is None:
                raise closed(self._vendor.name)
            if profile not in self._engines:
                self._engines[profile] = open_engine(
                    self._vendor, self._device, self._data, profile, self._options
                )
            if profile not in self._sessions:
                self._sessions[profile] = Session(
                    self._vendor, self._cuda, self._engines[profile], self._letterboxer
                )
            return self._sessions[profile]

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``."""
        return {
            "version": self._vendor.version,
            "device": str(self._device),
            "precision": "as stored" if self._options.exact else "as stored, fp32 as TF32",
            "engines": "; ".join(f"{one.profile} {one.origin}" for one in self._engines.values()),
        }

    def close(self) -> None:
        """Free sessions and engines, once no thread runs them."""
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._data = None
            self._sessions = {}
            self._engines = {}

    def _guarded(self, shape: tuple[int, ...], run: Callable[[Session], Outputs]) -> Outputs:
        if self._data is None:
            raise closed(self._vendor.name)
        profile = self._profile(shape)
        try:
            session = self.session(profile)
        except InferenceError:
            raise
        except Exception as error:
            raise self._failed(shape, error) from error
        try:
            return run(session)
        except EdgeFaceError:
            raise
        except Exception as error:
            # What a failed run leaves in the stream is nothing to go on with.
            self._sessions.pop(profile, None)
            raise self._failed(shape, error) from error

    def _failed(self, shape: tuple[int, ...], error: Exception) -> InferenceError:
        wanted = f"expected '{self._vendor.name}' to run frames of shape {shape}"
        if isinstance(error, EdgeFaceError):
            return InferenceError(f"{wanted}, but: {error}")
        remedy = _remedy(error) or "pad the frames to the model's stride, or choose another backend"
        return InferenceError(f"{wanted}, got: {error}; {remedy}")

    def _profile(self, shape: tuple[int, ...]) -> Profile:
        known = (profile for profile in tuple(self._engines) if profile.takes(shape))
        return next(known, None) or profile_for(shape, self._options)


def _remedy(error: Exception) -> str:
    """What helps against a failure of CUDA; "" for others."""
    if not isinstance(error, CudaError):
        return ""
    if error.code == OUT_OF_MEMORY:
        return "close other programs that use the GPU, or take smaller frames or fewer at once"
    return "restart the program; where that does not help, look at 'nvidia-smi'"
