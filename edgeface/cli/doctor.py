"""``edgeface doctor``: what runs on this machine, what does not, and how to mend it."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import edgeface
from edgeface.bundle import Artifact, Bundle, load_bundle, shipped_models
from edgeface.errors import EdgeFaceError, ModelIntegrityError
from edgeface.hardware import Host, host
from edgeface.runtimes.base import Backend, backends
from edgeface.runtimes.plugins import Broken, plugins
from edgeface.runtimes.probe import Verdict, probe
from edgeface.selection import rank, uninstalled
from edgeface.thermal import Thermal, read_thermal
from edgeface.tuned import describe_size, recall

INPUT_SIZE = 640
EPILOG = """\
Every backend is tried anew in a process of its own: a library that crashes or hangs is reported.

exit codes:
  0 a backend runs and the shipped models are intact · 1 otherwise
"""

Report = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="say which backends run on this machine, and why not the others",
        description="Check this machine, its backends and the shipped models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """Print the report; return 1 where nothing runs or a shipped model is damaged."""
    report = examine()
    print(json.dumps(report, indent=2) if args.json else render(report))
    return 0 if report["healthy"] else 1


def examine() -> Report:
    """Probe every backend anew and check every shipped model.

    Returns:
        The report as ``--json`` prints it: edgeface, python, machine, backends, models and healthy.
        Each model holds its artifacts, under "auto" the backends in the order that
        ``Detector("auto")`` tries them, and under "measured" what ``edgeface tune`` measured.
    """
    machine, known = host(), backends()
    verdicts = {name: probe(name, refresh=True) for name in known}
    models = [_model(name, machine, verdicts, known) for name in shipped_models()]
    return {
        "edgeface": edgeface.__version__,
        "python": platform.python_version(),
        "machine": _machine(machine, read_thermal()),
        "backends": [
            *(_backend(verdict, known[name]) for name, verdict in verdicts.items()),
            *map(_broken, plugins().broken),
        ],
        "models": models,
        "healthy": bool(models) and all(map(_is_healthy, models)),
    }


def render(report: Report) -> str:
    """Lay the report out for people."""
    lines = [
        f"edgeface {report['edgeface']}, Python {report['python']}",
        *_machine_lines(report["machine"]),
        "",
        "Backends",
        *(
            f"  {one['name']:<12} {'runs' if one['available'] else '-':<5} "
            f"{one['version'] or '':<9} {one['reason'] or _remarks(one)}".rstrip()
            for one in report["backends"]
        ),
        "",
        "Models",
    ]
    for model in report["models"]:
        lines.append(f"  {model['name']}  {model['problem'] or ''}".rstrip())
        lines += [
            f"    {one['format']:<11} {one['precision']:<5} {one['problem'] or 'intact'}"
            for one in model["artifacts"]
        ]
        usable = [one for one in model["auto"] if one["usable"]]
        lines += [
            f"    auto {place}: {one['backend']:<12} {one['file']}, {one['reason']}"
            for place, one in enumerate(usable, 1)
        ]
        lines += [] if usable else ["    auto: nothing runs it; mend a backend above"]
        known = {one["reason"] for one in report["backends"]}
        lines += [
            f"    not auto: {one['backend']}, {one['reason']}"
            for one in model["auto"]
            if not one["usable"] and one["reason"] not in known
        ]
        lines += [
            f"    measured: {one['name']}: {one['result']}"
            for one in model["measured"]
            if not one["exact"]
        ]
        if not model["measured"]:
            lines.append("    not measured: 'edgeface tune' finds the fastest on this machine")
    lines += [] if report["models"] else ["  none: reinstall edgeface"]
    return "\n".join(lines)


def _machine(machine: Host, thermal: Thermal) -> Report:
    return {
        **asdict(machine),
        "flags": sorted(machine.flags),
        "threads": machine.threads,
        "arithmetic": machine.arithmetic,
        "thermal": asdict(thermal),
    }


def _machine_lines(machine: Report) -> list[str]:
    kinds = [
        f"{kind['count']} x {kind['name'] or 'unknown'}"
        + (f" at {kind['max_mhz']} MHz" if kind["max_mhz"] else "")
        + ("" if kind["big"] else " (little)")
        for kind in machine["core_types"]
    ]
    quota = "" if machine["quota"] is None else f", time for {machine['quota']:g} by cgroup"
    has = [name for name, there in machine["arithmetic"].items() if there]
    lacks = [name for name, there in machine["arithmetic"].items() if not there]
    thermal = machine["thermal"]
    heat = [] if thermal["celsius"] is None else [f"{thermal['celsius']:.0f} °C"]
    rows = {
        "machine": ", ".join(
            (
                machine["board"] or machine["cpu"] or "unknown CPU",
                f"{machine['system']} {machine['machine']}",
                "NVIDIA driver" if machine["nvidia"] else "no NVIDIA driver",
            )
        ),
        "cores": f"{' + '.join(kinds) or machine['cores']}{quota}; "
        f"{machine['threads']} threads by default",
        "arithmetic": f"{' '.join(has) or 'plain'}" + (f", no {' '.join(lacks)}" if lacks else ""),
        "temperature": "; ".join((*heat, *thermal["slowed"])) or "unknown",
        "governor": thermal["governor"] or "unknown",
    }
    return [f"  {name:<12} {value}" for name, value in rows.items()]


def _remarks(backend: Report) -> str:
    """The device that it ran on, and what else to know of a backend that runs."""
    plugin = backend["plugin"] and f"a plug-in of {backend['plugin']}"
    return "; ".join(filter(None, (backend["device"], plugin, backend["note"])))


def _backend(verdict: Verdict, backend: Backend) -> Report:
    return {
        **asdict(verdict),
        "plugin": backend.distribution or None,
        "install": None if verdict.available else backend.install,
        "note": backend.legacy() or (backend.caveat if verdict.available else "") or None,
    }


def _broken(plugin: Broken) -> Report:
    verdict = Verdict(plugin.name, False, None, plugin.reason)
    return {**asdict(verdict), "plugin": plugin.distribution, "install": None, "note": None}


def _model(
    name: str, machine: Host, verdicts: Mapping[str, Verdict], known: Mapping[str, Backend]
) -> Report:
    try:
        bundle = load_bundle(name)
    except EdgeFaceError as error:
        return {"name": name, "problem": str(error), "artifacts": [], "auto": [], "measured": []}
    measured = recall(bundle)
    candidates = rank(
        machine, verdicts, bundle, "auto", INPUT_SIZE, measured=measured, backends=known
    )
    candidates += uninstalled(measured, known)
    return {
        "name": name,
        "problem": None,
        "artifacts": [
            {**asdict(artifact), "problem": _damage(bundle, artifact)}
            for artifact in bundle.artifacts
        ],
        "auto": [
            {
                "backend": candidate.backend,
                "usable": candidate.artifact is not None,
                "file": candidate.artifact.file if candidate.artifact else None,
                "reason": candidate.reason,
                "threads": candidate.threads or machine.threads,
                "ms": candidate.measured.ms if candidate.measured else None,
            }
            for candidate in candidates
        ],
        "measured": [
            {
                **asdict(one),
                "name": f"{one.backend}, {one.name}, {describe_size(one.input_size)}",
                "result": str(one),
            }
            for one in measured
        ],
    }


def _damage(bundle: Bundle, artifact: Artifact) -> str | None:
    try:
        bundle.open(artifact)
    except ModelIntegrityError as error:
        return str(error)
    return None


def _is_healthy(model: Report) -> bool:
    damaged = model["problem"] or any(one["problem"] for one in model["artifacts"])
    return not damaged and any(one["usable"] for one in model["auto"])
