"""Arms: named lists of switches over a preset's options and a recipe's values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeface.errors import InvalidOptionError
from edgeface.nets.registry import SWITCH, find_preset, read_options, with_options
from edgeface.training.objectives import training_terms
from edgeface.training.recipe import Recipe

PHASE_FIELDS = ("size", "batch", "crop")
NESTED_FIELDS = ("matching", "second_matching", "mix")
FIXED_FIELDS = ("preset", "phases", "supervision", "event_weights", "milestones", "seed")
TICK = "✓"


@dataclass(frozen=True)
class Arm:
    """One row of an ablation table.

    Attributes:
        name: title of the row.
        switches: value by name, as text. A name is one of the preset's options, of the system's
            training terms, or of the recipe's fields: "landmark_weight", "matching.positive",
            and "size", "batch" or "crop" (two shares, "0.3-1") of every phase.
    """

    name: str
    switches: Mapping[str, str]


def parse_arm(text: str) -> Arm:
    """Read ``NAME: option=value, term=value``; an arm without switches is the preset as it is.

    Raises:
        InvalidOptionError: no name, or a switch without a value.
    """
    name, _, switches = text.partition(":")
    if not name.strip():
        raise InvalidOptionError(f"expected 'NAME: option=value, …', got {text!r}")
    return Arm(name.strip(), parse_switches(switches))


def parse_switches(text: str) -> dict[str, str]:
    """Read ``name=value, name=value``; InvalidOptionError for anything else."""
    switches = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value:
            raise InvalidOptionError(f"expected NAME=VALUE, got {entry!r}")
        switches[name] = value
    return switches


def apply(switches: Mapping[str, str], preset: str, recipe: Recipe) -> tuple[str, Recipe]:
    """Return the preset's specification and the recipe with the switches set.

    Raises:
        InvalidOptionError: no such switch, or a value of the wrong kind.
    """
    for name, text in switches.items():
        if name in find_preset(preset).options:
            preset = with_options(preset, {name: text})
        else:
            recipe = _set(recipe, name, text, preset)
    return preset, replace(recipe, preset=preset)


def shown(name: str, preset: str, recipe: Recipe) -> str:
    """What a table shows for a switch: a tick, nothing, or the value in force."""
    value = _value(name, preset, recipe)
    if isinstance(value, bool):
        return TICK if value else ""
    if name in (terms := training_terms(preset)):
        return "" if value == 0 else TICK if value == terms[name] else f"{value:g}"
    if isinstance(value, tuple):
        return "-".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(name: str, preset: str, recipe: Recipe) -> Any:
    options, terms = read_options(preset), training_terms(preset)
    if name in options:
        return options[name]
    if name in terms:
        return recipe.strength(name, terms[name])
    if name in PHASE_FIELDS:
        return getattr(recipe.phases[-1], name)
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _set(recipe: Recipe, name: str, text: str, preset: str) -> Recipe:
    terms = training_terms(preset)
    group, _, field = name.partition(".")
    try:
        if name in terms:
            strengths = {**dict(recipe.supervision), name: _strength(text, terms[name])}
            return replace(recipe, supervision=tuple(strengths.items()))
        if name in PHASE_FIELDS:
            changed: dict[str, Any] = {name: _phase_value(name, text)}
            return replace(recipe, phases=tuple(replace(p, **changed) for p in recipe.phases))
        if group in NESTED_FIELDS and field in _fields(getattr(recipe, group)):
            nested = replace(getattr(recipe, group), **{field: float(text)})
            return replace(recipe, **{group: nested})
        if name in _switchable(recipe):
            kind = type(getattr(recipe, name))
            value: Any = {name: SWITCH[text.lower()] if kind is bool else kind(text)}
            return replace(recipe, **value)
    except (ValueError, KeyError) as error:
        raise InvalidOptionError(f"expected a value for '{name}', got '{text}'") from error
    raise InvalidOptionError(
        f"expected a switch of preset '{preset}': one of its options "
        f"({_listed(find_preset(preset).options)}), of its training terms ({_listed(terms)}), of "
        f"the recipe's fields ({_listed([*PHASE_FIELDS, *_switchable(recipe)])}), or a field of "
        f"{_listed(NESTED_FIELDS)} such as 'matching.positive'; got '{name}'"
    )


def _switchable(recipe: Recipe) -> list[str]:
    left_out = (*FIXED_FIELDS, *NESTED_FIELDS)
    return [name for name in _fields(recipe) if name not in left_out]


def _strength(text: str, papers: float) -> float:
    """A number; "off" is 0, and "on" the paper's, where the paper kept the term."""
    if text.lower() == "off":
        return 0.0
    return papers if text.lower() == "on" and papers else float(text)


def _phase_value(name: str, text: str) -> int | tuple[float, float]:
    if name != "crop":
        return int(text)
    least, most = (float(share) for share in text.split("-"))
    return least, most


def _fields(instance: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(instance)]


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
