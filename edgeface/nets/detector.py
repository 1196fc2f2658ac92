"""A detector is backbone, neck, context and head."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from edgeface.anchors import AnchorSpec
from edgeface.nets.heads.anchor import LevelOutput

BGR_MEAN = (104.0, 117.0, 123.0)


class TrainingOutputs(NamedTuple):
    """What a system's objective learns from.

    Attributes:
        features: what the context modules return: pyramid levels, finest first, or the system's
            own structure of them.
        head: what the head's ``training_outputs`` returns for them.
    """

    features: Any
    head: Any


class DetectorNet(nn.Module):
    """Composition of the four parts; a preset chooses them.

    The parts agree among themselves on what flows from neck to head: a list of pyramid levels,
    finest first, in most systems.

    Attributes:
        anchors: geometry that the head's outputs are relative to.
        mean: BGR mean that is subtracted from the pictures.
        preset: specification that ``build`` made it from.
        system: published detector that it belongs to; decides what it learns from.
    """

    _mean: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        context: nn.Module,
        head: nn.Module,
        anchors: AnchorSpec,
        mean: tuple[float, float, float] = BGR_MEAN,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.context = context
        self.head = head
        self.anchors = anchors
        self.mean = mean
        self.preset = "custom"
        self.system = "retinaface"
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def features(self, images: torch.Tensor) -> Any:
        """Map pictures, as ``forward`` takes them, to what the head takes."""
        return self.context(self.neck(self.backbone(images - self._mean)))

    def forward(self, images: torch.Tensor) -> list[LevelOutput]:
        """Detect.

        Args:
            images: float (N, 3, H, W), BGR, 0 to 255; sides multiples of the largest stride.

        Returns:
            One ``LevelOutput`` per level of ``anchors``, finest first.
        """
        outputs: list[LevelOutput] = self.head(self.features(images))
        return outputs

    def training_outputs(self, images: torch.Tensor) -> TrainingOutputs:
        """Features and every output that has a loss, of pictures as ``forward`` takes them."""
        features = self.features(images)
        return TrainingOutputs(features, self.head.training_outputs(features))  # type: ignore[operator]
