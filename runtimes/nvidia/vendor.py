"""TensorRT 10, TensorRT 11 and TensorRT-RTX as one: all that differs between them is here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from edgeface.errors import BackendUnavailableError
from edgeface.runtimes.base import import_vendor

_KEPT_MESSAGES = 8


@dataclass(frozen=True)
class Vendor:
    """One of the TensorRT libraries.

    Attributes:
        name: the backend: "tensorrt" or "tensorrt-rtx".
        api: its Python module.
        log: its logger, which keeps the last errors.
    """

    name: str
    api: Any
    log: Any

    @property
    def version(self) -> str:
        """Version of the library."""
        return str(self.api.__version__)

    @property
    def compiles_on_device(self) -> bool:
        """Whether it is TensorRT-RTX, which compiles kernels when a frame first needs them."""
        return hasattr(self.api, "IRuntimeCache")

    def trouble(self) -> str:
        """What it logged as errors since the last call, on one line."""
        said = "; ".join(" ".join(message.split()) for message in self.log.errors)
        self.log.errors.clear()
        return said or "it gives no reason"

    def builder(self) -> Any:
        """Make a builder.

        Raises:
            BackendUnavailableError: the library cannot start: driver and library do not fit.
        """
        return self._made("Builder")

    def runtime(self) -> Any:
        """Make what reads engines; as ``builder``."""
        return self._made("Runtime")

    def network(self, builder: Any) -> Any:
        """Make a network that computes in the graph's types: 10 offers it, 11 knows no other."""
        flag = int(self.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return builder.create_network(1 << flag)

    def aim_at_this_device(self, config: Any) -> None:
        """Build for the GPU that is here; TensorRT-RTX would build for every one it knows."""
        if self.compiles_on_device:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.api.ComputeCapability.CURRENT, 0)

    def set_timings(self, config: Any, kept: bytes) -> None:
        """Start from kept timings of kernels; TensorRT-RTX times none."""
        if not self.compiles_on_device:
            config.set_timing_cache(config.create_timing_cache(kept), False)

    def timings(self, config: Any) -> bytes:
        """Timings of kernels after a build, empty where there are none."""
        if self.compiles_on_device:
            return b""
        cache = config.get_timing_cache()
        return bytes(cache.serialize()) if cache else b""

    def context(self, engine: Any, kernels: bytes) -> tuple[Any, Any]:
        """Make an execution context.

        Args:
            engine: an ``ICudaEngine``.
            kernels: compiled kernels that were kept, or empty.

        Returns:
            The context, None where the GPU's memory does not suffice; and the ``IRuntimeCache``
            that holds its compiled kernels, None for TensorRT proper.
        """
        if not self.compiles_on_device:
            return engine.create_execution_context(), None
        config = engine.create_runtime_config()
        # It knows when its kernels for a new shape are ready; a capture from outside would not.
        config.cuda_graph_strategy = self.api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = config.create_runtime_cache()
        if kernels:
            cache.deserialize(kernels)
        config.set_runtime_cache(cache)
        return engine.create_execution_context(config), cache

    def _made(self, kind: str) -> Any:
        self.log.errors.clear()
        try:
            made = getattr(self.api, kind)(self.log)
        except Exception as error:
            raise self._cannot_start(error) from error
        if made is None:
            raise self._cannot_start(None)
        return made

    def _cannot_start(self, error: Exception | None) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"expected {self.name} {self.version} to start, got: {error or 'nothing'}; it says: "
            f"{self.trouble()}; update the NVIDIA driver, or install the release for your driver"
        )


def find_vendor(name: str) -> Vendor:
    """Import a TensorRT library.

    Args:
        name: the backend.

    Raises:
        MissingDependencyError: it is not installed.
        BackendUnavailableError: it does not import.
    """
    api = import_vendor(name)
    return Vendor(name, api, _logger(api))


@lru_cache
def _logger(api: ModuleType) -> Any:
    """One logger for the whole process, as TensorRT wants it."""

    class Log(api.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(message)

    return Log()
