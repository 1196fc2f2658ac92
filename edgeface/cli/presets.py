"""``edgeface presets``: the nets that edgeface builds, what they cost, and where weights exist."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.bundle import load_bundle, shipped_models, write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.progress import track

if TYPE_CHECKING:
    from torch import nn

    from edgeface.nets import DetectorNet

EPILOG = """\
examples:
  edgeface presets                                    every preset
  edgeface presets refineface_resnet18:width=256      one, with an option changed
  edgeface presets --json presets.json

GMAC are for a picture of 640 x 480, in billions of multiply-accumulates of the deployed net; the
frame grows to a multiple of the coarsest stride, which is 640 x 512 for some.
"""
WIDTH, HEIGHT = 640, 480


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "presets",
        help="list the nets that edgeface builds",
        description="List the nets that edgeface builds: parts, options, cost, trained weights.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "preset", metavar="PRESET", nargs="*", help="names or specifications (default: all)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from edgeface.nets import presets

    if args.json is not None:
        check_writable("--json", args.json)
    weights = _weights()
    chosen = args.preset or presets()
    records = [_record(preset, weights) for preset in track(chosen, "counting", unit="preset")]
    print(_markdown(records))
    if args.json is not None:
        write_atomic(args.json, (json.dumps(records, indent=2) + "\n").encode())
    return 0


def _record(specification: str, weights: dict[str, list[str]]) -> dict[str, Any]:
    from edgeface.nets import build, find_preset
    from edgeface.nets.cost import cost
    from edgeface.nets.registry import read_options
    from edgeface.training.objectives import training_terms

    found, net = find_preset(specification), build(specification)
    spent = cost(net, WIDTH, HEIGHT)
    return {
        "preset": net.preset,
        "system": found.system,
        "summary": found.summary,
        "parts": _parts(net),
        "options": read_options(specification),
        "training_terms": dict(training_terms(specification)),
        "frame": [spent.width, spent.height],
        "gmac": round(spent.gmac, 4),
        "parameters": spent.parameters,
        "weights": weights.get(net.preset, []),
    }


def _parts(net: DetectorNet) -> list[str]:
    """What backbone, neck, context and head are made of; of a list of parts, what is in it."""
    parts = (net.backbone, net.neck, net.context, net.head)
    named = [" + ".join(dict.fromkeys(_classes(part))) for part in parts]
    return [name for name in named if name]


def _classes(part: nn.Module) -> list[str]:
    from torch import nn

    if type(part) is nn.Sequential or isinstance(part, nn.ModuleList):
        return [name for inner in part for name in _classes(inner)]
    return [] if isinstance(part, nn.Identity) else [type(part).__name__]


def _weights() -> dict[str, list[str]]:
    """Shipped models by the preset that they are trained weights of."""
    found: dict[str, list[str]] = {}
    for name in shipped_models():
        found.setdefault(load_bundle(name).preset, []).append(name)
    return found


def _markdown(records: list[dict[str, Any]]) -> str:
    lines = [
        "| preset | parts | options | learns by | GMAC | parameters | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        options = ", ".join(f"{name}={_text(value)}" for name, value in record["options"].items())
        terms = ", ".join(f"{name}={value:g}" for name, value in record["training_terms"].items())
        cells = [
            record["preset"],
            " · ".join(record["parts"]),
            options or "–",
            terms or "–",
            f"{record['gmac']:.2f}",
            f"{record['parameters'] / 1e6:.2f} M",
            ", ".join(record["weights"]) or "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"
