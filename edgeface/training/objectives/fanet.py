"""FANet's hierarchical loss (section 3.4, fanet.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.nets.heads.hierarchy import LevelHeads
from edgeface.nets.necks.agglomeration import AgglomerationPyramid
from edgeface.training.objectives.base import BatchTargets, Losses, Objective
from edgeface.training.objectives.retinaface import multitask_loss
from edgeface.training.recipe import Recipe


class FANetObjective(Objective):
    """The multibox loss of every hierarchy of feature maps (equations 4 and 5).

    Earlier hierarchies predict by heads of their own, which are children of this module. A level
    that the next hierarchy leaves as it is has one prediction for both, as it has one map.

    The paper's terms: ``classes``, its lambda of 3; ``hierarchical``, the weight of each earlier
    hierarchy, for it says "uniform". Landmarks, which it has not, are weighed by the recipe.
    """

    strengths: ClassVar[Mapping[str, float]] = {"classes": 3.0, "hierarchical": 1.0}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:
        super().__init__(net, recipe)
        self.earlier = nn.ModuleList()
        if self.strength("hierarchical"):
            neck, levels = net.neck, net.anchors.levels
            assert isinstance(neck, AgglomerationPyramid)
            self.earlier.extend(
                LevelHeads(channels[:changed], levels)
                for channels, changed in zip(neck.channels[:-1], neck.changed, strict=True)
            )

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch; the logged terms are those of the deployed hierarchy."""
        hierarchies, deployed = net.training_outputs(images)
        losses = self._multibox(deployed, targets)
        total, terms = losses.total, losses.terms
        for number, outputs in enumerate(self._earlier_outputs(hierarchies, deployed), 1):
            loss = self._multibox(outputs, targets).total
            total = total + self.strength("hierarchical") * loss
            terms[f"hierarchy_{number}"] = loss.detach()
        return Losses(total, terms)

    def _earlier_outputs(
        self, hierarchies: list[list[torch.Tensor]], deployed: list[LevelOutput]
    ) -> list[list[LevelOutput]]:
        """Outputs of every hierarchy but the last; levels that do not change are the next's."""
        outputs = [deployed]
        for heads, maps in zip(
            reversed(list(self.earlier)), reversed(hierarchies[: len(self.earlier)]), strict=True
        ):
            own = heads(maps)
            outputs.insert(0, own + outputs[0][len(own) :])
        return outputs[:-1]

    def _multibox(self, outputs: list[LevelOutput], targets: BatchTargets) -> Losses:
        return multitask_loss(outputs, targets, self.recipe, class_weight=self.strength("classes"))
