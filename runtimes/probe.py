"""Find out whether a backend runs on this machine, without risking the process that asks.

A vendor wheel may hold instructions that the CPU lacks, or hang while it looks for devices. So a
subprocess imports it and runs one frame through the model that ships; the verdict is kept on disk
until the wheel, Python, edgeface, the CPU, the NVIDIA driver or a plug-in's devices change.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgeface import __version__, cache
from edgeface.bundle import Artifact, Bundle, load_bundle, shipped_models
from edgeface.errors import EdgeFaceError
from edgeface.hardware import cpu_signature, nvidia_driver
from edgeface.runtimes.base import Backend, RuntimeOptions, backend, load
from edgeface.runtimes.child import Child, ChildError, answer, can_start

_CHILD = "import sys; from edgeface.runtimes import probe; probe.main(*sys.argv[1:])"
_SMALL = (64, 64)


@dataclass(frozen=True)
class Verdict:
    """Whether a backend runs on this machine.

    Attributes:
        name: the backend.
        available: it imported and ran a frame.
        version: version of its library, where known.
        reason: why it is not available, with the remedy; "" where it is.
        device: what it ran the frame on, where known.
        legacy: it runs on a package that has a successor, and int8 is slow there.
    """

    name: str
    available: bool
    version: str | None
    reason: str
    device: str = ""
    legacy: bool = False


_verdicts: dict[tuple[object, ...], Verdict] = {}


def probe(name: str, timeout: float | None = None, *, refresh: bool = False) -> Verdict:
    """Return the verdict on a backend; a subprocess runs only where none is kept.

    Args:
        name: a backend of ``edgeface.runtimes.base.backends()``.
        timeout: seconds after which even a busy backend counts as hanging; None: its own patience.
        refresh: probe again even if a verdict is kept.

    Raises:
        InvalidOptionError: unknown backend.
    """
    wanted = backend(name)
    package = wanted.installed_package()
    if package is None:
        return Verdict(name, False, None, wanted.missing())
    installed = _installed_version(package)
    devices = wanted.found_devices()
    if wanted.devices and not devices:
        return Verdict(name, False, installed, _without_device(wanted))
    place = (sys.version, __version__, cpu_signature(), nvidia_driver())
    key = (name, package, installed, wanted.distribution, devices, *place)
    kept = None if refresh else _verdicts.get(key) or _recall(key)
    if kept is None:
        kept = _ask(wanted, installed, wanted.patience if timeout is None else timeout)
        cache.remember("probe", *key, data=json.dumps(asdict(kept)).encode())
    _verdicts[key] = kept
    return kept


def main(name: str) -> None:
    """Probe a backend in this process and answer with the verdict: what the subprocess runs."""
    answer(json.dumps(asdict(_try(backend(name)))))


def _ask(wanted: Backend, installed: str, patience: float) -> Verdict:
    """Probe in a subprocess, or here where Python cannot start another of itself."""
    if not can_start():
        return _try(wanted)
    with closing(Child(_CHILD, wanted.name)) as child:
        try:
            return Verdict(**json.loads(child.receive(patience)))
        except ChildError as failure:
            return _refuse(wanted, installed, str(failure))


def _refuse(wanted: Backend, installed: str, reason: str) -> Verdict:
    remedy = f"try another version ({wanted.install}), then 'edgeface doctor' probes again"
    return Verdict(wanted.name, False, installed, f"{reason}; {remedy}")


def _without_device(wanted: Backend) -> str:
    told = f"none of its devices is here ({', '.join(wanted.devices)})"
    return f"{told}; connect one and load its driver"


def _try(wanted: Backend) -> Verdict:
    package = wanted.installed_package()
    found = _installed_version(package) if package else None
    try:
        found = str(import_module(wanted.module).probe())
        device = _run_shipped_model(wanted)
    except EdgeFaceError as error:
        return Verdict(wanted.name, False, found, str(error))
    except Exception as error:
        return Verdict(wanted.name, False, found, f"{wanted.name} failed its test run: {error!r}")
    return Verdict(wanted.name, True, found, "", device, wanted.legacy() is not None)


def _run_shipped_model(wanted: Backend) -> str:
    """Run one frame; return the device that ran it, where there is a model to run.

    int8 is tried beside fp32, because it takes other instructions of the CPU.
    """
    device = ""
    for bundle in map(load_bundle, shipped_models()):
        for precision in ("fp32", "int8"):
            artifact = wanted.artifact(bundle, (precision,))
            if artifact is not None:
                device = _run(wanted, bundle, artifact)
        if device:
            break
    return device


def _run(wanted: Backend, bundle: Bundle, artifact: Artifact) -> str:
    width, height = min(artifact.input_sizes, default=_SMALL)
    options = RuntimeOptions(
        input_size=(width, height),
        input_sizes=artifact.input_sizes,
        batch=artifact.batch,
        exact=False,
        threads=1,
        cache_key=artifact.sha256,
        stride=bundle.anchors.max_stride,
        quick=True,
    )
    runtime = load(wanted.name, bundle.open(artifact), options)
    runtime.infer(np.zeros((1, height, width, 3), np.uint8))
    device = runtime.describe().get("device", "")
    runtime.close()
    return device


def _installed_version(package: str) -> str:
    """Version of an installed package; where its distribution has another name, when it came."""
    try:
        return version(package)
    except PackageNotFoundError:
        spec = find_spec(package)
        origin = Path(spec.origin) if spec and spec.origin else None
        return f"of {origin.stat().st_mtime:.0f}" if origin and origin.is_file() else "unknown"


def _recall(key: tuple[object, ...]) -> Verdict | None:
    try:
        return Verdict(**json.loads(cache.recall("probe", *key) or b""))
    except (TypeError, ValueError):
        return None
