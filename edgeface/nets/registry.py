"""The registry of presets: a function's name is the preset's name, its arguments the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeface.errors import InvalidOptionError
from edgeface.nets.detector import DetectorNet

PresetFunction = Callable[..., DetectorNet]
SWITCH = {"on": True, "off": False, "1": True, "0": False, "true": True, "false": False}


@dataclass(frozen=True)
class Preset:
    """A net that edgeface builds.

    Attributes:
        name: what ``build`` takes.
        system: the published detector whose parts and training it has.
        function: builds the net; its keyword arguments are the preset's options.
    """

    name: str
    system: str
    function: PresetFunction

    @property
    def options(self) -> Mapping[str, Any]:
        """Options and their defaults: booleans, numbers or texts."""
        parameters = inspect.signature(self.function).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


_PRESETS: dict[str, Preset] = {}


def preset(system: str) -> Callable[[PresetFunction], PresetFunction]:
    """Register the function below as a preset of a system."""

    def register(function: PresetFunction) -> PresetFunction:
        _PRESETS[function.__name__] = Preset(function.__name__, system, function)
        return function

    return register


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(_PRESETS)


def find_preset(name: str) -> Preset:
    """Look a preset up by name or specification; InvalidOptionError for an unknown one."""
    base = name.partition(":")[0]
    if base not in _PRESETS:
        raise InvalidOptionError(f"expected a preset of {', '.join(presets())}, got {name!r}")
    return _PRESETS[base]


def read_options(specification: str) -> dict[str, Any]:
    """Every option of a specification, those that it leaves out at their defaults.

    Raises:
        InvalidOptionError: as ``build``.
    """
    found = find_preset(specification)
    return {**found.options, **_parse(found, specification.partition(":")[2])}


def with_options(specification: str, options: Mapping[str, str]) -> str:
    """The specification with options set, whose values are as in a specification.

    Raises:
        InvalidOptionError: as ``build``.
    """
    found = find_preset(specification)
    added = ",".join(f"{name}={value}" for name, value in options.items())
    told = ",".join(filter(None, (specification.partition(":")[2], added)))
    return _specification(found, _parse(found, told))


def build(specification: str) -> DetectorNet:
    """Build a preset with fresh weights.

    Args:
        specification: a preset's name, with options after a colon where they differ from its
            defaults: ``refineface_resnet18:width=256,rfe=off``.

    Returns:
        The net; ``net.preset`` is the specification with its options in order.

    Raises:
        InvalidOptionError: unknown preset or option, or a value of the wrong kind.
    """
    found = find_preset(specification)
    options = _parse(found, specification.partition(":")[2])
    net = found.function(**options)
    net.preset = _specification(found, options)
    net.system = found.system
    return net


def _specification(found: Preset, options: Mapping[str, Any]) -> str:
    told = ",".join(
        f"{name}={_text(options[name])}"
        for name, default in found.options.items()
        if options.get(name, default) != default
    )
    return f"{found.name}:{told}" if told else found.name


def _parse(found: Preset, text: str) -> dict[str, Any]:
    options = {}
    for entry in filter(None, text.split(",")):
        name, _, value = entry.partition("=")
        if name not in found.options:
            known = ", ".join(found.options) or "none"
            raise InvalidOptionError(
                f"expected options of preset '{found.name}' ({known}), got {entry!r}"
            )
        options[name] = _value(found.options[name], value, entry)
    return options


def _value(default: Any, text: str, entry: str) -> Any:
    try:
        return SWITCH[text.lower()] if isinstance(default, bool) else type(default)(text)
    except (KeyError, ValueError) as error:
        kind = "on or off" if isinstance(default, bool) else type(default).__name__
        raise InvalidOptionError(f"expected NAME={kind}, got {entry!r}") from error


def _text(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"
