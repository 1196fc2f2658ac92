"""Engines of one model: taken from the cache where they fit this machine, else built and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgeface import cache
from edgeface.errors import BackendUnavailableError
from edgeface.hardware import nvidia_driver
from edgeface.runtimes.base import RuntimeOptions
from edgeface.runtimes.nvidia.build import build
from edgeface.runtimes.nvidia.cuda import Device
from edgeface.runtimes.nvidia.profiles import Profile
from edgeface.runtimes.nvidia.vendor import Vendor


@dataclass(frozen=True)
class Engine:
    """An engine that is ready to run.

    Attributes:
        profile: the frames that it takes.
        engine: the ``ICudaEngine``.
        origin: where it comes from, for ``explain()``.
        key: what it depends on, for caches of what belongs to it.
        reader: the ``Runtime`` that it lives in.
    """

    profile: Profile
    engine: Any
    origin: str
    key: tuple[object, ...]
    reader: Any


def open_engine(
    vendor: Vendor, device: Device, model: bytes, profile: Profile, options: RuntimeOptions
) -> Engine:
    """Load the kept engine, or build one and keep it.

    A kept engine that does not load is removed before another is built.

    Args:
        vendor: the library.
        device: the GPU that is here.
        model: the ONNX file, which ``options.cache_key`` names.
        profile: the frames that it must take.
        options: ``exact``, ``quick`` and ``cache_key`` count.

    Raises:
        ModelIntegrityError: see ``build``.
        BackendUnavailableError: see ``build``; or the new engine does not load.
    """
    place = (vendor.version, device.name, device.capability, device.cuda, nvidia_driver())
    key = (options.cache_key, *place, options.exact, options.quick, profile)
    reader = vendor.runtime()
    if kept := cache.recall(vendor.name, *key):
        if engine := _read(reader, kept):
            return Engine(profile, engine, "from the cache", key, reader)
        cache.forget(vendor.name, *key)
    started = time.monotonic()
    timings = f"{vendor.name}-timings"
    built = build(
        vendor,
        model,
        profile,
        exact=options.exact,
        quick=options.quick,
        timings=cache.recall(timings, *place) or b"",
        for_this_device=True,
    )
    vendor.log.errors.clear()
    engine = _read(reader, built.engine)
    if engine is None:
        raise BackendUnavailableError(
            f"expected {vendor.name} {vendor.version} to load the engine that it built for "
            f"{device}, got: {vendor.trouble()}; reinstall {vendor.name}, or choose another backend"
        )
    cache.remember(vendor.name, *key, data=built.engine)
    if built.timings:
        cache.remember(timings, *place, data=built.timings)
    return Engine(profile, engine, f"built in {time.monotonic() - started:.1f} s", key, reader)


def _read(reader: Any, data: bytes) -> Any:
    """Return the engine, None where the library refuses it."""
    try:
        return reader.deserialize_cuda_engine(data)
    except Exception:
        return None
