"""The papers' ablation tables as arms: which of a system's parts each row has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeface.errors import InvalidOptionError
from edgeface.nets.registry import find_preset
from edgeface.training.ablation.arms import TICK, Arm, parse_switches


@dataclass(frozen=True)
class Part:
    """A column of ticks.

    Attributes:
        title: of the column.
        on: switches of the rows that have it.
        off: switches of the rows that have not.
    """

    title: str
    on: str
    off: str


@dataclass(frozen=True)
class Table:
    """An ablation table of a paper.

    Attributes:
        title: what it is and where it stands.
        system: whose presets it is about.
        parts: its columns of ticks.
        rows: titles of the parts that each row has; the first row is what the others are
            compared with.
    """

    title: str
    system: str
    parts: tuple[Part, ...]
    rows: tuple[tuple[str, ...], ...]

    def arms(self) -> list[Arm]:
        """One arm per row; all else is as the preset and recipe have it."""
        return [Arm(" + ".join(row) or "baseline", self._switches(row)) for row in self.rows]

    def ticks(self, row: int) -> dict[str, str]:
        """Cell by part of a row."""
        return {part.title: TICK if part.title in self.rows[row] else "" for part in self.parts}

    def _switches(self, row: tuple[str, ...]) -> Mapping[str, str]:
        switches = {}
        for part in self.parts:
            switches.update(parse_switches(part.on if part.title in row else part.off))
        return switches


TABLES = {
    "retinaface-3": Table(
        "RetinaFace, table 3 (section 4.3)",
        "retinaface",
        (
            Part("DCN", "heavy=on, deformable=on", "heavy=on, deformable=off"),
            Part("Lpts", "landmark_weight=0.1", "landmark_weight=0"),
            Part("Lpixel", "dense=on", "dense=off"),
        ),
        ((), ("DCN",), ("DCN", "Lpts"), ("DCN", "Lpixel"), ("DCN", "Lpts", "Lpixel")),
    ),
    "refineface-1": Table(
        "RefineFace, table 1 (section 4.1.1)",
        "refineface",
        (
            Part("STR", "str=on", "str=off"),
            Part("STC", "stc=on", "stc=off"),
            Part("RFE", "rfe=on", "rfe=off"),
            Part("SML", "sml=on", "sml=off"),
            Part("FSM", "fsm=on", "fsm=off"),
        ),
        (
            (),
            ("STR",),
            ("STC",),
            ("RFE",),
            ("SML",),
            ("FSM",),
            ("STR", "STC"),
            ("STR", "STC", "RFE"),
            ("STR", "STC", "RFE", "SML"),
            ("STR", "STC", "RFE", "SML", "FSM"),
        ),
    ),
    "df2s2-2": Table(
        "DF2S2, table 2 (section 4.2)",
        "df2s2",
        (
            Part("Seg.", "segmentation=on", "segmentation=off"),
            Part(
                "Aug.",
                "crop=0.3-1",
                "crop=1-1, mix.mosaic=0, mix.zoom_out=0, mix.close_up=0",
            ),
            Part("Fus.", "fusion=on", "fusion=off"),
        ),
        ((), ("Seg.",), ("Seg.", "Aug."), ("Fus.",), ("Seg.", "Aug.", "Fus.")),
    ),
    # Its last two columns, a shorter side of 768 and several scales, are tests of the last row's
    # weights: edgeface eval --scales.
    "fanet-2": Table(
        "FANet, table 2 (section 4.1)",
        "fanet",
        (
            Part("1-level", "hierarchy=1", ""),
            Part("2-level", "hierarchy=2", ""),
            Part("3-level", "hierarchy=3", ""),
            Part("Context", "context=on", "context=off"),
            Part("HL", "hierarchical=on", "hierarchical=off"),
        ),
        (
            ("1-level",),
            ("2-level",),
            ("2-level", "HL"),
            ("3-level",),
            ("3-level", "HL"),
            ("3-level", "Context", "HL"),
        ),
    ),
}


def find_table(name: str, preset: str) -> Table:
    """Look a table up that is about the preset's system.

    Raises:
        InvalidOptionError: unknown table, or one of another system.
    """
    if name not in TABLES:
        raise InvalidOptionError(f"expected a table of {', '.join(TABLES)}, got '{name}'")
    table = TABLES[name]
    if find_preset(preset).system != table.system:
        raise InvalidOptionError(
            f"expected a preset of {table.system} for table '{name}', got '{preset}'"
        )
    return table
