"""The recipes that made our weights, and the papers' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeface.training.matching import Matching
from edgeface.training.recipe import Mix, Phase, Recipe, load_recipe

PAPER = "paper"

SHIPPED = {
    recipe.preset: recipe
    for recipe in (
        Recipe(
            preset="retinaface_mobilenet025",
            phases=(Phase(3900, 320, 32, (0.3, 1.0)), Phase(2800, 640, 8, (0.6, 1.4))),
            learning_rate=3e-2,
            warm_up=0.03,
            schedule="cosine",
            matching=Matching(positive=0.35, negative=0.3),
            mix=Mix(mosaic=0.22, zoom_out=0.08, close_up=0.18),
            event_weights=(("13--Interview", 0.3),),
        ),
    )
}


def choose_recipe(preset: str, name: str | None) -> Recipe:
    """Recipe for a preset.

    Args:
        preset: the net to train.
        name: None for the one behind our weights, or the paper's where we have none; "paper"; or
            the path of a JSON file that ``Recipe.save`` wrote.

    Raises:
        TrainingError: the file is no recipe.
    """
    if name is None:
        return SHIPPED.get(preset, Recipe(preset))
    if name == PAPER:
        return Recipe(preset)
    return replace(load_recipe(Path(name)), preset=preset)


def scale_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe shortened or stretched to so many steps, phases in proportion."""
    factor = steps / recipe.steps
    phases = [replace(p, steps=max(round(p.steps * factor), 1)) for p in recipe.phases]
    return replace(recipe, phases=tuple(phases))
