"""Training samples: several roots mixed by weight, augmented and matched in the data workers.

Sample ``i`` depends on the seed and ``i`` alone, so a run that resumes at a step goes on with the
very samples that it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.errors import TrainingError
from edgeface.training.augment import (
    Sample,
    anchor_sampling,
    close_up,
    flip,
    mosaic,
    photometric,
    random_crop,
    zoom_out,
)
from edgeface.training.cache import PictureCache
from edgeface.training.matching import Targets, match, unmatched
from edgeface.training.objectives.base import BatchTargets
from edgeface.training.recipe import Phase, Recipe

HASH_BUCKETS = 10_000


@dataclass(frozen=True)
class Root:
    """A folder of pictures in the mix.

    Attributes:
        pictures: its decoded pictures and labels.
        weight: share of the samples, relative to the other roots.
        partial: only some faces of each picture are labelled, so what is not labelled is ignored
            instead of learnt as background.
    """

    pictures: PictureCache
    weight: float = 1.0
    partial: bool = False


@dataclass(frozen=True)
class Item:
    """An augmented sample with its targets and the picture it came from."""

    sample: Sample
    targets: Targets
    source: str


@dataclass(frozen=True)
class Batch:
    """Collated items: uint8 images (N, H, W, 3) BGR, targets, and the pictures' paths."""

    images: torch.Tensor
    targets: BatchTargets
    sources: list[str]


def held_out(name: str, share: float) -> bool:
    """Whether a picture belongs to the held-out slice; decided by its name alone."""
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HASH_BUCKETS
    return bucket < share * HASH_BUCKETS


class FaceDataset(Dataset[Item]):
    """Samples of one phase, addressed by their number since the start of the run."""

    def __init__(
        self, roots: Sequence[Root], anchors: AnchorSpec, recipe: Recipe, phase: Phase
    ) -> None:
        self._roots = roots
        self._recipe = recipe
        self._phase = phase
        self._variances = anchors.variances
        self._priors = prior_boxes(anchors, phase.size, phase.size)
        self._anchor_sizes = [level.sizes[0] for level in anchors.levels]
        self._entries, self._cumulative = _sampling_table(roots, recipe)
        self._close_ups = [
            (root, index, face)
            for root, index in self._entries
            for face in _large_faces(roots[root].pictures, index, recipe.mix.close_up_pixels)
        ]

    def __getitem__(self, number: int) -> Item:
        rng = np.random.default_rng([self._recipe.seed, number])
        sample, source = self._draw(rng)
        if rng.random() < 0.5:
            sample = flip(sample)
        sample = replace(sample, image=photometric(sample.image, rng))
        return Item(sample, self._targets(sample), source)

    def _targets(self, sample: Sample) -> Targets:
        if self._recipe.assignment == "aligned":
            return unmatched(len(self._priors))
        return match(
            self._priors,
            self._variances,
            sample.boxes,
            sample.landmarks,
            sample.ignore,
            self._recipe.matching,
        )

    def _draw(self, rng: np.random.Generator) -> tuple[Sample, str]:
        mix, size = self._recipe.mix, self._phase.size
        kind = rng.random()
        if kind < mix.close_up and self._close_ups:
            root, index, face = self._close_ups[rng.integers(len(self._close_ups))]
            return close_up(self._load(root, index), face, size, rng), self._name(root, index)
        entries = [self._pick(rng) for _ in range(4)]
        samples = (self._load(*entry) for entry in entries)
        if kind < mix.close_up + mix.mosaic:
            names = ", ".join(self._name(*entry) for entry in entries)
            return mosaic(list(samples), size, rng), names
        sample, name = next(samples), self._name(*entries[0])
        if kind < mix.close_up + mix.mosaic + mix.zoom_out:
            return zoom_out(sample, size, mix.zoom_out_most, rng), name
        faces = np.flatnonzero(~sample.ignore)
        if len(faces) and kind < mix.close_up + mix.mosaic + mix.zoom_out + mix.anchor_sampling:
            face = int(rng.choice(faces))
            return anchor_sampling(sample, face, size, self._anchor_sizes, rng), name
        return random_crop(sample, size, self._phase.crop, rng), name

    def _pick(self, rng: np.random.Generator) -> tuple[int, int]:
        position = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return self._entries[min(position, len(self._entries) - 1)]

    def _name(self, root: int, index: int) -> str:
        return str(self._roots[root].pictures.annotations[index].image)

    def _load(self, root: int, index: int) -> Sample:
        pictures = self._roots[root].pictures
        annotation = pictures.annotations[index]
        image = pictures.picture(index)
        boxes, landmarks, ignore = annotation.boxes, annotation.landmarks, annotation.ignore
        if self._roots[root].partial:
            height, width = image.shape[:2]
            boxes = np.concatenate([boxes, np.array([[0, 0, width, height]], np.float32)])
            landmarks = np.concatenate([landmarks, np.full((1, 5, 2), np.nan, np.float32)])
            ignore = np.append(ignore, True)
        return Sample(image, boxes, landmarks, ignore)


def _sampling_table(
    roots: Sequence[Root], recipe: Recipe
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Pictures in training, and their cumulative probabilities."""
    event_weights = dict(recipe.event_weights)
    entries, weights = [], []
    for number, root in enumerate(roots):
        indices = [
            index
            for index, annotation in enumerate(root.pictures.annotations)
            if root.partial or not held_out(annotation.image.stem, recipe.held_out)
        ]
        shares = np.array(
            [event_weights.get(root.pictures.annotations[i].event, 1.0) for i in indices]
        )
        if not shares.sum() > 0 or root.weight <= 0:
            continue
        entries += [(number, index) for index in indices]
        weights.append(root.weight * shares / shares.sum())
    if not entries:
        raise TrainingError("expected pictures with a positive weight to train on, got none")
    probabilities = np.concatenate(weights)
    return entries, np.cumsum(probabilities / probabilities.sum())


def _large_faces(pictures: PictureCache, index: int, pixels: float) -> list[int]:
    annotation = pictures.annotations[index]
    sides = (annotation.boxes[:, 2:] - annotation.boxes[:, :2]).max(1, initial=0)
    return [int(face) for face in np.flatnonzero((sides >= pixels) & ~annotation.ignore)]


def collate(items: Sequence[Item]) -> Batch:
    """Stack items; positive anchors are numbered through the flattened batch."""
    anchors = len(items[0].targets.labels)
    return Batch(
        torch.from_numpy(np.stack([item.sample.image for item in items])),
        BatchTargets(
            torch.from_numpy(np.stack([item.targets.labels for item in items])),
            torch.from_numpy(
                np.concatenate([item.targets.index + n * anchors for n, item in enumerate(items)])
            ),
            torch.from_numpy(np.concatenate([item.targets.deltas for item in items])),
            torch.from_numpy(np.concatenate([item.targets.landmarks for item in items])),
            torch.from_numpy(np.concatenate([item.sample.boxes for item in items])),
            torch.from_numpy(np.concatenate([item.sample.landmarks for item in items])),
            torch.from_numpy(
                np.repeat(np.arange(len(items)), [len(item.sample.boxes) for item in items])
            ),
            torch.from_numpy(np.concatenate([item.sample.ignore for item in items])),
        ),
        [item.source for item in items],
    )
