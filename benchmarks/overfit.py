"""Can each preset learn? It overfits eight pictures of WIDER FACE; the table says how well.

    python benchmarks/overfit.py --data DATA [--preset NAME …] [--steps N] [--side 128] > table.md

DATA is the project's data folder, with wider/train and backbones/. A net that is wired wrongly,
or whose loss or matching contradicts its decoding, cannot reach an AP near 1 on pictures that it
sees in every step. The pictures have one to three labelled faces, all large; each is seen whole,
mirrored or not, in random light. The system's own losses and matching are used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgeface.evaluation.run import evaluate
from edgeface.nets import build, presets
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.training.cache import build_cache
from edgeface.training.dataset import Root
from edgeface.training.labels import Annotation, read_labels
from edgeface.training.loop import Settings, train
from edgeface.training.recipe import Mix, Phase, Recipe
from edgeface.training.recipes import choose_recipe
from edgeface.training.validation import TorchDetector, held_out_pictures

PICTURES = 8
LEAST_SHARE = 0.15
BACKBONE = "mobilenet_v1_025_imagenet.safetensors"


@dataclass(frozen=True)
class Schedule:
    """How a preset is trained here: steps, and the peak learning rate."""

    steps: int = 150
    learning_rate: float = 3e-2


# A fast rate serves on so few pictures. DF2S2's shared tower has no norms and bears less; ISRN and
# edgeface_nano start from nothing, and ResNet-18 without ImageNet's weights, which the data folder
# has not.
SCHEDULES = {
    "df2s2_mobilenet025": Schedule(400, 1e-2),
    "df2s2_resnet18": Schedule(300, 1e-2),
    "edgeface_nano": Schedule(800),
    "fanet_resnet18": Schedule(learning_rate=1e-2),
    "isrn_mobilenet025": Schedule(400),
    "isrn_resnet18": Schedule(500),
    "refineface_resnet18": Schedule(learning_rate=1e-2),
    "retinaface_resnet18": Schedule(learning_rate=1e-2),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a preset: AP at IoU 0.5 and mAP@0.5:0.95 on the pictures it learnt."""

    preset: str
    ap: float
    map: float
    steps: int
    seconds: float


def choose_pictures(annotations: Sequence[Annotation]) -> list[Annotation]:
    """The first pictures, each of another event, whose one to three faces are all large."""
    chosen: dict[str, Annotation] = {}
    for annotation in annotations:
        sides = (annotation.boxes[:, 2:] - annotation.boxes[:, :2]).max(1, initial=0)
        reach = max(annotation.boxes.max(initial=1), 1.0)
        if (
            1 <= len(sides) <= 3
            and not annotation.ignore.any()
            and sides.min() > LEAST_SHARE * reach
        ):
            chosen.setdefault(annotation.event, annotation)
    return list(chosen.values())[:PICTURES]


def overfit_recipe(preset: str, schedule: Schedule, side: int, pictures: int) -> Recipe:
    """The system's light recipe, without what makes its samples differ."""
    return replace(
        choose_recipe(preset, None),
        learning_rate=schedule.learning_rate,
        phases=(Phase(schedule.steps, side, pictures),),
        warm_up=0.1,
        average=0.9,
        mix=Mix(mosaic=0, zoom_out=1, close_up=0, zoom_out_most=1.1),
        held_out=0.0,
        event_weights=(),
    )


def overfit(
    preset: str, root: Root, backbones: Path, side: int, steps: int | None = None
) -> Outcome:
    """Train a preset on the pictures, by default as ``SCHEDULES`` says, and measure it on them."""
    schedule = SCHEDULES.get(preset, Schedule())
    if steps is not None:
        schedule = replace(schedule, steps=steps)
    started = time.monotonic()
    torch.manual_seed(0)
    net = build(preset)
    weights = backbones / BACKBONE if type(net.backbone) is MobileNet025 else None
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), weights=weights, workers=0, save_minutes=60)
        recipe = overfit_recipe(preset, schedule, side, len(root.pictures))
        train(net, [root], recipe, settings)
    report = evaluate(TorchDetector(net, long_side=side), held_out_pictures([root], share=1.0))
    return Outcome(preset, report.hard, report.map, schedule.steps, time.monotonic() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", action="append", help="default: all")
    parser.add_argument("--steps", type=int, help="default: the preset's own")
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = choose_pictures(read_labels(args.data / "wider" / "train").annotations)
    with tempfile.TemporaryDirectory() as folder:
        root = Root(build_cache(chosen, Path(folder)))
        faces = int(np.sum([len(annotation.boxes) for annotation in chosen]))
        print(f"{len(chosen)} pictures, {faces} faces, {args.side} pixels, seed 0.\n")
        print("| preset | AP | mAP@0.5:0.95 | steps | seconds |\n|---|---|---|---|---|")
        for preset in args.preset or presets():
            done = overfit(preset, root, args.data / "backbones", args.side, args.steps)
            print(
                f"| {done.preset} | {done.ap:.3f} | {done.map:.3f} | {done.steps} | "
                f"{done.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
