"""The papers' recipes, ours for a CPU, and those that made our weights.

The papers train on WIDER FACE's 12,880 training pictures; an epoch is as many samples. None but
RetinaFace has landmarks: the others' recipes keep its weight for them, so that every preset learns
the same outputs. Where a paper leaves a value open, the comment says whose we took.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeface.errors import TrainingError
from edgeface.nets.registry import find_preset
from edgeface.training.matching import Matching
from edgeface.training.recipe import Mix, Phase, Recipe, load_recipe

PAPER, SHORT = "paper", "short"
SCRATCH, FURTHER, ALIGNED, FINISH = "scratch", "further", "aligned", "finish"

EPOCH = 12_880
PLAIN = Mix(mosaic=0.0, zoom_out=0.0, close_up=0.0)


def _epochs(
    epochs: int, size: int, batch: int, crop: tuple[float, float] = (0.3, 1.0)
) -> tuple[Phase]:
    return (Phase(epochs * EPOCH // batch, size, batch, crop),)


PAPERS = {
    # Section 4.2, retinaface.txt: "Anchor Settings", "Data Augmentation", "Training Details".
    # Section 4.8: "the first two convolutional layers [...] are fixed to achieve higher accuracy".
    "retinaface": Recipe(
        preset="",
        phases=_epochs(80, size=640, batch=32),
        learning_rate=1e-2,
        weight_decay=5e-4,
        warm_up=5 / 80,
        milestones=(55 / 80, 68 / 80),
        fixed_layers=True,
        matching=Matching(positive=0.5, negative=0.3, forced=0.5),
        mix=PLAIN,
    ),
    # Section 3.6, refineface.txt. Expansion by up to 2 at SSD's probability of one half.
    "refineface": Recipe(
        preset="",
        phases=_epochs(130, size=1024, batch=32, crop=(0.5, 1.0)),
        learning_rate=1e-2,
        weight_decay=1e-4,
        warm_up=5 / 130,
        warm_up_from=1 / 32,
        milestones=(100 / 130, 120 / 130),
        box_weight=1.0,
        classification="focal",
        matching=Matching(positive=0.7, negative=0.3, forced=0.7),
        second_matching=Matching(positive=0.5, negative=0.4, forced=0.5),
        mix=replace(PLAIN, zoom_out=0.5),
    ),
    # Sections 3.3 and 3.4, isrn.txt: from scratch, without the pretraining on COCO.
    "isrn": Recipe(
        preset="",
        phases=_epochs(260, size=1024, batch=32, crop=(0.5, 1.0)),
        learning_rate=1e-2,
        weight_decay=1e-4,
        warm_up=5 / 260,
        milestones=(230 / 260, 250 / 260),
        box_weight=1.0,
        classification="focal",
        matching=Matching(positive=0.7, negative=0.3, forced=0.7),
        second_matching=Matching(positive=0.5, negative=0.4, forced=0.5),
        mix=replace(PLAIN, anchor_sampling=0.5),
    ),
    # Section 3.4, df2s2.txt. The size of its samples is not given: RetinaFace's.
    "df2s2": Recipe(
        preset="",
        phases=_epochs(120, size=640, batch=32),
        learning_rate=4e-3,
        weight_decay=1e-4,
        warm_up=0.0,
        milestones=(80 / 120, 100 / 120),
        box_weight=1.0,
        classification="focal",
        matching=Matching(positive=0.5, negative=0.4, forced=0.5),
        mix=PLAIN,
    ),
    # Sections 3.4 and 3.5, fanet.txt: lambda 3 on the classes. Expansion as SSD's: half, up to 4.
    "fanet": Recipe(
        preset="",
        phases=_epochs(120, size=640, batch=12),
        learning_rate=4e-3,
        weight_decay=5e-4,
        warm_up=0.0,
        milestones=(80 / 120, 100 / 120),
        box_weight=1.0,
        matching=Matching(positive=0.35, negative=0.35),
        mix=replace(PLAIN, zoom_out=0.5, zoom_out_most=4.0),
    ),
}


def _light(system: str, small: Phase) -> Recipe:
    """A paper's losses on the schedule that a CPU bears in hours.

    Its matching too, but each face takes its best anchor: of few pictures no face may be lost.
    """
    paper = PAPERS[system]
    return replace(
        paper,
        matching=replace(paper.matching, forced=Matching.forced),
        second_matching=replace(paper.second_matching, forced=Matching.forced),
        phases=(small, Phase(2800, 640, 8, (0.6, 1.4))),
        weight_decay=5e-4,
        fixed_layers=False,
        warm_up=0.03,
        warm_up_from=0.1,
        schedule="cosine",
        mix=Mix(mosaic=0.22, zoom_out=0.08, close_up=0.18),
        event_weights=(("13--Interview", 0.3),),
    )


# Ours, to go on from earlier weights. The boxes' loss weighs as much as in YOLOX (Ge et al. 2021).
TASK_ALIGNED = Recipe(
    preset="",
    phases=(Phase(9250, 320, 32), Phase(250, 640, 8, (0.6, 1.4))),
    assignment="aligned",
    learning_rate=2e-2,
    weight_decay=5e-4,
    warm_up=0.03,
    schedule="cosine",
    average=0.999,
    box_weight=5.0,
    landmark_weight=5.0,
    mix=Mix(mosaic=0.22, zoom_out=0.08, close_up=0.18),
    event_weights=(("13--Interview", 0.3),),
)

# Large samples at a low rate, after TASK_ALIGNED: the largest faces come back that small samples
# lack. Best is the mean of the weights before and after.
FINISHING = replace(
    TASK_ALIGNED, phases=(Phase(950, 640, 8, (0.6, 1.4)),), learning_rate=3e-3, average=0.997
)

# From fresh weights, in as few samples as a CPU bears: small crops first, then larger ones.
FROM_SCRATCH = replace(
    TASK_ALIGNED,
    phases=(
        Phase(1420, 192, 32, (0.2, 0.7)),
        Phase(800, 256, 32, (0.25, 0.9)),
        Phase(400, 320, 16, (0.3, 1.2)),
        Phase(400, 640, 4, (0.6, 1.4)),
    ),
    optimizer="muon",
    learning_rate=2e-3,
    momentum=0.95,
    weight_decay=0.05,
    average=0.997,
)

# On from those, beside a teacher. Best is the mean of the weights before and after.
GOING_ON = replace(
    FROM_SCRATCH,
    phases=(Phase(1650, 320, 16, (0.3, 1.3)), Phase(780, 640, 8, (0.5, 1.4))),
    learning_rate=1e-3,
    average=0.998,
    teacher_weight=0.25,
    mix=Mix(mosaic=0.14, zoom_out=0.06, close_up=0.28),
)

NAMED = {SCRATCH: FROM_SCRATCH, FURTHER: GOING_ON, ALIGNED: TASK_ALIGNED, FINISH: FINISHING}

# Samples are multiples of the coarsest stride, which is 128 in all but RetinaFace. RetinaFace bears
# three times its paper's learning rate; FANet collapses at it, and the others keep their papers'.
LIGHT = {
    "retinaface": replace(
        _light("retinaface", Phase(3900, 320, 32)),
        learning_rate=3e-2,
        matching=Matching(positive=0.35, negative=0.3),
    ),
    **{
        system: _light(system, Phase(3900, 384, 24))
        for system in ("refineface", "isrn", "df2s2", "fanet")
    },
    "nano": replace(
        TASK_ALIGNED,
        learning_rate=3e-2,
        phases=(Phase(10600, 320, 32), Phase(2000, 640, 8, (0.6, 1.4))),
    ),
}

SHIPPED = {
    "retinaface_mobilenet025": replace(
        LIGHT["retinaface"], preset="retinaface_mobilenet025", supervision=(("dense", 0.0),)
    )
}


def choose_recipe(preset: str, name: str | None) -> Recipe:
    """Recipe for a preset.

    Args:
        preset: the net to train; a name or a specification with options.
        name: None for the one behind our weights, or our light one for the system; "paper" for
            the paper's; "short" for the light one's first phase in half batches, for ablations;
            for heads with one step of anchors "scratch", task-aligned learning from fresh
            weights, "further" to go on from there, "aligned", the same from earlier ones, and
            "finish", its end on larger samples; or the path of a JSON file that ``Recipe.save``
            wrote.

    Raises:
        InvalidOptionError: unknown preset.
        TrainingError: the file is no recipe, or the preset has no paper.
    """
    found = find_preset(preset)
    if name is None:
        recipe = SHIPPED.get(found.name, LIGHT[found.system])
    elif name == PAPER:
        if found.system not in PAPERS:
            raise TrainingError(
                f"expected a published detector for its paper's recipe, got '{found.name}', which "
                "is ours; leave the recipe out for the one that it is trained by"
            )
        recipe = PAPERS[found.system]
    elif name in NAMED:
        recipe = NAMED[name]
    elif name == SHORT:
        recipe = LIGHT[found.system]
        small = recipe.phases[0]
        recipe = replace(recipe, phases=(replace(small, steps=4000, batch=small.batch // 2),))
    else:
        recipe = load_recipe(Path(name))
    return replace(recipe, preset=preset)


def scale_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe shortened or stretched to so many steps, phases in proportion."""
    factor = steps / recipe.steps
    phases = [replace(p, steps=max(round(p.steps * factor), 1)) for p in recipe.phases]
    return replace(recipe, phases=tuple(phases))
