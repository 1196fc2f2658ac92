"""The protocol between the detector and a backend, and the table of backends."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import PRECISIONS, Artifact, Bundle
from edgeface.devicepicture import DevicePicture
from edgeface.errors import (
    BackendUnavailableError,
    InferenceError,
    InvalidImageError,
    InvalidOptionError,
    MissingDependencyError,
    ModelIntegrityError,
)

INPUT = "image"
OUTPUTS = ("logit", "delta", "landmark")
CUDA_DEVICE = "CUDA"
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class RuntimeOptions:
    """What a backend needs beside the model's bytes.

    Attributes:
        input_size: fixed (width, height) of every frame, or None where sizes vary.
        input_sizes: sizes that a static artifact accepts; empty: any.
        exact: keep the artifact's own arithmetic; otherwise the backend may lower fp32 to what
            is fastest on the device (bf16 or fp16).
        threads: worker threads, of all streams together.
        streams: frames from as many calling threads that are computed at the same time, with an
            equal share of the threads each.
        cache_key: name of the model and its hash, for backends that cache compiled models.
        stride: the model's coarsest stride, which divides both sides of every frame.
        long_side: largest side of a frame in pixels, or None where it is not known.
        quick: start fast rather than run fast: what probing wants.
        batch: frames that a static artifact takes at once; None: any number.
    """

    input_size: tuple[int, int] | None
    input_sizes: tuple[tuple[int, int], ...]
    exact: bool
    threads: int
    cache_key: str
    stride: int = 32
    long_side: int | None = None
    quick: bool = False
    streams: int = 1
    batch: int | None = None

    @property
    def threads_per_stream(self) -> int:
        """Worker threads for one frame."""
        return max(1, self.threads // self.streams)


class Runtime(Protocol):
    """A loaded model.

    ``infer`` takes uint8 (N, H, W, 3) BGR frames, contiguous, and returns the graph's named
    outputs: ``logit_{stride}`` (N, H*W*A, 1), ``delta_{stride}`` (N, H*W*A, 4) and
    ``landmark_{stride}`` (N, H*W*A, 10), float32. Threads may share a runtime; the arrays are
    valid until the calling thread's next call.
    """

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph.

        Raises:
            InvalidImageError: the frames have a dtype, shape or size that the graph excludes.
            InferenceError: the backend failed, or the runtime is closed.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``: library version, device, precision that runs."""
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...


@runtime_checkable
class DeviceRuntime(Runtime, Protocol):
    """A runtime that takes pictures from the memory of its own GPU as well."""

    def infer_picture(
        self,
        picture: DevicePicture,
        content: tuple[int, int],
        frame: tuple[int, int],
        pad_value: tuple[int, int, int],
    ) -> Outputs:
        """Letterbox a picture on the GPU, as ``edgeface.preprocess.letterbox`` does, and run it.

        Args:
            picture: the picture.
            content: (width, height) to which it is shrunk, at the top left.
            frame: (width, height) of the network's frame.
            pad_value: BGR value outside the picture.

        Raises:
            BackendUnavailableError: the GPU's letterbox cannot be compiled.
            InferenceError: see ``infer``.
        """
        ...


@dataclass(frozen=True)
class Backend:
    """A row in the table of backends.

    Attributes:
        name: what ``Detector(backend)`` takes.
        module: module with ``probe() -> str`` and ``load(data, options) -> Runtime``.
        packages: vendor packages that it runs on, by their import names, the preferred one first.
        install: the command that installs the preferred one.
        formats: artifact formats that it loads, the one made for it first.
        note: what else a user should know before installing it.
        caveat: what a user should know where it runs.
        strongly_typed: computes in the types of the file, and takes fp16 and int8 only as made for
            it; others lower fp32 by themselves, and read each other's files.
        patience: seconds that probing may take while the process computes; one that does nothing
            hangs, see ``edgeface.runtimes.child``.
        batches: by the artifact's precision, how many frames of one size it computes faster
            together than one by one, as ``benchmarks/throughput.py`` measured it; others: 1.
        accepts: precisions of the artifacts that it loads.
        preference: why "auto" takes it before the backends of edgeface itself wherever it runs;
            "" puts it after them. For plug-ins.
        devices: patterns of its devices' files ("/dev/hailo*"); where none is there, it is not
            tried; empty: it needs none. For plug-ins.
        distribution: name and version of the package that a plug-in came with; filled in when
            it is found, "" for the backends of edgeface itself.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    install: str
    formats: tuple[str, ...]
    note: str = ""
    caveat: str = ""
    strongly_typed: bool = False
    # A board that starts from an SD card needs tens of seconds to import a vendor's package.
    patience: float = 60.0
    batches: Mapping[str, int] = field(default_factory=dict)
    accepts: tuple[str, ...] = PRECISIONS
    preference: str = ""
    devices: tuple[str, ...] = ()
    distribution: str = ""

    def installed_package(self) -> str | None:
        """Name of the vendor package that is installed, found without importing it."""
        return next((package for package in self.packages if find_spec(package)), None)

    def found_devices(self) -> tuple[str, ...]:
        """Files of its devices on this machine."""
        root = Path("/")
        found = {path for one in self.devices for path in root.glob(one.lstrip("/"))}
        return tuple(sorted(map(str, found)))

    @property
    def precisions(self) -> tuple[str, ...]:
        """What "auto" takes, the fastest first; fp16 saves only space where fp32 is lowered."""
        order = ("int8", "fp16", "fp32") if self.strongly_typed else ("int8", "fp32", "fp16")
        return tuple(one for one in order if one in self.accepts)

    def artifact(self, bundle: Bundle, precisions: Sequence[str]) -> Artifact | None:
        """Return the artifact of the first precision that it can load, or None."""
        for precision in filter(self.accepts.__contains__, precisions):
            own_only = self.strongly_typed and precision != "fp32"
            found = bundle.best(self.formats[: 1 if own_only else None], (precision,))
            if found is not None:
                return found
        return None

    def legacy(self) -> str | None:
        """Say that it runs on a package that has a successor, or return None."""
        package = self.installed_package()
        if package in (None, self.packages[0]):
            return None
        return (
            f"on the legacy package {package}, slower at int8; "
            f"{self.packages[0]} replaces it: {self.install}"
        )

    def missing(self) -> str:
        """Say that no package is installed, and how to mend that."""
        remedy = f"install it with: {self.install}{self.note and f' ({self.note})'}"
        return f"the package '{self.packages[0]}' is not installed; {remedy}"


_UNVERIFIED = "this release of edgeface was tested without a GPU: check its faces on yours"

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "tensorrt",
            "edgeface.runtimes.tensorrt",
            ("tensorrt",),
            "pip install 'edgeface[tensorrt]'",
            ("tensorrt", "onnx"),
            note="for NVIDIA GPUs; on a Jetson it comes with JetPack",
            caveat=_UNVERIFIED,
            strongly_typed=True,
            patience=180.0,
        ),
        Backend(
            "tensorrt-rtx",
            "edgeface.runtimes.tensorrt_rtx",
            ("tensorrt_rtx",),
            "pip install 'edgeface[tensorrt-rtx]'",
            ("tensorrt", "onnx"),
            note="for GeForce and RTX GPUs",
            caveat=_UNVERIFIED,
            strongly_typed=True,
        ),
        Backend(
            "openvino",
            "edgeface.runtimes.openvino",
            ("openvino",),
            "pip install 'edgeface[openvino]'",
            ("openvino", "onnx"),
            batches={"int8": 4},
        ),
        Backend(
            "tflite",
            "edgeface.runtimes.tflite",
            ("ai_edge_litert", "tflite_runtime"),
            "pip install 'edgeface[tflite]'",
            ("tflite",),
        ),
        Backend(
            "onnxruntime",
            "edgeface.runtimes.onnxruntime",
            ("onnxruntime",),
            "pip install onnxruntime",
            ("onnx",),
        ),
    )
}


def backend(name: str) -> Backend:
    """Look a backend up by name.

    Plug-ins are looked for only where edgeface itself has no backend of that name.

    Raises:
        InvalidOptionError: there is none.
        BackendUnavailableError: it is a plug-in that breaks its contract.
    """
    from edgeface.runtimes.plugins import plugins

    if name in BACKENDS:
        return BACKENDS[name]
    known = backends()
    for broken in plugins().broken:
        if broken.name == name and name not in known:
            raise BackendUnavailableError(f"the plug-in '{name}' cannot be used: {broken.reason}")
    if name not in known:
        raise InvalidOptionError(
            f"expected backend 'auto' or one of {', '.join(map(repr, known))}, got {name!r}"
        )
    return known[name]


def backends() -> dict[str, Backend]:
    """Every backend by name: those of edgeface itself, then the plug-ins."""
    from edgeface.runtimes.plugins import plugins

    return {**BACKENDS, **plugins().backends}


def load(name: str, data: bytes, options: RuntimeOptions) -> Runtime:
    """Load a model on the named backend; its vendor library is imported here, not before.

    Raises:
        InvalidOptionError: unknown backend.
        MissingDependencyError: the vendor package is not installed.
        BackendUnavailableError: the package is there but cannot run on this machine.
        ModelIntegrityError: the backend rejects the model.
    """
    runtime: Runtime = import_module(backend(name).module).load(data, options)
    if options.batch is None:
        return runtime
    from edgeface.runtimes.fixedbatch import FixedBatch

    return FixedBatch(runtime, options.batch)


def import_vendor(name: str, submodule: str = "") -> ModuleType:
    """Import the vendor package of a backend, or a submodule of it (".interpreter").

    Raises:
        MissingDependencyError: the package is not installed.
        BackendUnavailableError: it is installed but does not import.
    """
    vendor = backend(name)
    package = vendor.installed_package()
    if package is None:
        raise MissingDependencyError(
            f"expected a package for the backend '{name}', but {vendor.missing()}"
        )
    try:
        return import_module(package + submodule)
    except Exception as error:
        raise BackendUnavailableError(
            f"expected '{package}{submodule}' to import for the backend '{name}', got {error!r}; "
            f"reinstall it with: {vendor.install} --force-reinstall"
        ) from error


def check_graph(input_names: Collection[str], output_names: Collection[str]) -> None:
    """Raise ModelIntegrityError where a graph is not one that postprocessing can read."""
    strange = [name for name in output_names if name.split("_")[0] not in OUTPUTS]
    if list(input_names) != [INPUT] or strange or not output_names:
        raise ModelIntegrityError(
            f"expected a graph from '{INPUT}' to {'_*, '.join(OUTPUTS)}_*, got one from "
            f"{', '.join(input_names)} to {', '.join(output_names) or 'nothing'}; "
            "make the model with 'edgeface export'"
        )


def check_frames(frames: NDArray[np.uint8], input_sizes: tuple[tuple[int, int], ...] = ()) -> None:
    """Raise InvalidImageError for frames that native code must not see.

    Args:
        frames: what ``Runtime.infer`` got.
        input_sizes: (width, height) pairs that the model accepts; empty: any.
    """
    shape, dtype = getattr(frames, "shape", None), getattr(frames, "dtype", None)
    if (
        dtype != np.uint8
        or len(shape or ()) != 4
        or frames.shape[3] != 3
        or not frames.size
        or not frames.flags.c_contiguous
    ):
        raise InvalidImageError(
            "expected contiguous uint8 frames of shape (N, H, W, 3), got "
            f"{type(frames).__name__} {dtype} {shape}; letterbox pictures with edgeface.preprocess"
        )
    size = (frames.shape[2], frames.shape[1])
    if input_sizes and size not in input_sizes:
        accepted = ", ".join(f"{width}x{height}" for width, height in input_sizes)
        raise InvalidImageError(
            f"expected frames of {accepted}, got {size[0]}x{size[1]}; this model has fixed sizes: "
            "letterbox to one of them, or use the backend 'onnxruntime' or 'openvino'"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def rejected(name: str, error: Exception) -> ModelIntegrityError:
    """Build the error for a model that a backend does not load."""
    return ModelIntegrityError(
        f"expected a model that '{name}' can load, got: {_one_line(error)}; "
        "reinstall the model, or upgrade the backend"
    )


def failed(name: str, frames: NDArray[np.uint8], error: Exception) -> InferenceError:
    """Build the error for frames that a backend failed on."""
    return InferenceError(
        f"expected '{name}' to run frames of shape {frames.shape}, got: {_one_line(error)}; "
        "pad the frames to the model's stride, or choose another backend"
    )


def closed(name: str) -> InferenceError:
    """Build the error for a runtime that is used after ``close()``."""
    return InferenceError(
        f"expected an open model on '{name}', got a closed one; make a new Detector"
    )
