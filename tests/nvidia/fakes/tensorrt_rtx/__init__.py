"""The fake TensorRT-RTX: the fake TensorRT, and what it has beyond it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import tensorrt
from tensorrt import (  # noqa: F401
    BuilderFlag,
    DataType,
    IExecutionContext,
    ILogger,
    IProgressMonitor,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    nptype,
    state,
)

__version__ = "1.7.1.116"
saved: list[bytes] = []


class ComputeCapability(IntEnum):
    CURRENT = 1


class CudaGraphStrategy(IntEnum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class IRuntimeCache:
    def __init__(self) -> None:
        self._kernels = b"kernels"

    def serialize(self) -> memoryview:
        return memoryview(self._kernels)

    def deserialize(self, kept: bytes) -> bool:
        saved.append(kept)
        return True


class _RuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    _cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class ICudaEngine(tensorrt.ICudaEngine):
    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig()

    def create_execution_context(self, config: Any = None) -> Any:
        assert config.cuda_graph_strategy == CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        assert config._cache is not None
        return super().create_execution_context()


class _Config(tensorrt._Config):
    num_compute_capabilities = 0
    _target: ComputeCapability | None = None

    def set_compute_capability(self, target: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self._target = target
        return True

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        raise AssertionError("TensorRT-RTX times no kernels")


class Builder(tensorrt.Builder):
    def create_builder_config(self) -> _Config:
        return _Config()


class Runtime(tensorrt.Runtime):
    def deserialize_cuda_engine(self, data: bytes) -> Any:
        engine = super().deserialize_cuda_engine(data)
        if engine is not None:
            engine.__class__ = ICudaEngine
        return engine
