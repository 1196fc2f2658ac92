"""Backends that other packages bring, by the entry-point group ``edgeface.runtimes``.

An entry point names a ``Backend``. What is wrong with one is told in a warning and by ``edgeface
doctor``; it never stops the others. Reading every package's metadata costs tens of milliseconds, so
what a folder of packages holds is kept on disk until the folder changes.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from edgeface import cache
from edgeface.runtimes.base import BACKENDS, Backend

GROUP = "edgeface.runtimes"


@dataclass(frozen=True)
class Entry:
    """An entry point of the group.

    Attributes:
        name: the backend's name.
        value: "module:attribute" of its ``Backend``.
        distribution: name and version of the package that declares it.
    """

    name: str
    value: str
    distribution: str


@dataclass(frozen=True)
class Broken:
    """A plug-in that cannot be used, and why."""

    name: str
    distribution: str
    reason: str


@dataclass(frozen=True)
class Plugins:
    """The plug-ins of this environment: backends by name, and those that cannot be used."""

    backends: Mapping[str, Backend]
    broken: tuple[Broken, ...]


def plugins() -> Plugins:
    """Find and import the plug-ins' descriptions; a broken one is told in one warning."""
    found = [entry for folder in dict.fromkeys(sys.path) for entry in _entries(Path(folder))]
    return _load(tuple({(entry.name, entry.value): entry for entry in reversed(found)}.values()))


def _entries(folder: Path) -> list[Entry]:
    """The group's entry points in a folder of packages; read anew where the folder changed."""
    try:
        key = (GROUP, str(folder.resolve()), folder.stat().st_mtime_ns)
    except OSError:
        return []
    try:
        return [Entry(**one) for one in json.loads(cache.recall("plugins", *key) or b"")]
    except (TypeError, ValueError):
        pass
    packages = list(distributions(path=[str(folder)]))
    found = [
        Entry(point.name, point.value, f"{package.metadata['Name']} {package.version}")
        for package in packages
        for point in package.entry_points
        if point.group == GROUP
    ]
    if packages:
        cache.remember("plugins", *key, data=json.dumps([asdict(one) for one in found]).encode())
    return found


@lru_cache(maxsize=4)
def _load(entries: tuple[Entry, ...]) -> Plugins:
    """Import what the entries name; kept, so that a broken one is told once in a process."""
    usable: dict[str, Backend] = {}
    broken = []
    for entry in sorted(entries, key=lambda one: (one.name, one.distribution)):
        try:
            found = EntryPoint(entry.name, entry.value, GROUP).load()
            problem = _problem(entry, found, usable)
        except (Exception, SystemExit) as error:
            problem = f"expected its description '{entry.value}' to import, got {error!r}"
        if problem:
            reason = f"{problem}; upgrade or uninstall the package {entry.distribution}"
            broken.append(Broken(entry.name, entry.distribution, reason))
            warnings.warn(f"edgeface leaves out the plug-in '{entry.name}': {reason}", stacklevel=4)
        else:
            usable[entry.name] = replace(found, distribution=entry.distribution)
    return Plugins(usable, tuple(broken))


def _problem(entry: Entry, found: object, usable: Mapping[str, Backend]) -> str:
    """Say what breaks the contract of a plug-in; "" where nothing does."""
    if not isinstance(found, Backend):
        return (
            f"expected '{entry.value}' to be an edgeface.runtimes.base.Backend, "
            f"got {type(found).__name__}"
        )
    if found.name != entry.name:
        return f"expected its Backend to have the name of the entry point, got {found.name!r}"
    if entry.name in ("auto", *BACKENDS):
        return f"expected a name of its own, got '{entry.name}', which edgeface itself uses"
    if entry.name in usable:
        return f"expected a name of its own, got one that {usable[entry.name].distribution} uses"
    for field in ("packages", "formats", "accepts", "devices"):
        value = getattr(found, field)
        whole = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
        if not whole or (field != "devices" and not value):
            return f"expected its {field} to be a tuple of names, got {value!r}"
    return ""
