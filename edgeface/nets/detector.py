"""A detector is backbone, neck, context and head."""

from __future__ import annotations

import torch
from torch import nn

from edgeface.anchors import AnchorSpec
from edgeface.nets.heads.anchor import LevelOutput

BGR_MEAN = (104.0, 117.0, 123.0)


class DetectorNet(nn.Module):
    """Composition of the four parts; a preset chooses them.

    Attributes:
        anchors: geometry that the head's outputs are relative to.
        preset: name of the preset that built it.
        mean: BGR mean that is subtracted from the pictures.
    """

    _mean: torch.Tensor

    def __init__(
        self,
        preset: str,
        backbone: nn.Module,
        neck: nn.Module,
        context: nn.ModuleList,
        head: nn.Module,
        anchors: AnchorSpec,
        mean: tuple[float, float, float] = BGR_MEAN,
    ) -> None:
        super().__init__()
        self.preset = preset
        self.backbone = backbone
        self.neck = neck
        self.context = context
        self.head = head
        self.anchors = anchors
        self.mean = mean
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> list[LevelOutput]:
        """Detect.

        Args:
            images: float (N, 3, H, W), BGR, 0 to 255; sides multiples of the largest stride.

        Returns:
            One ``LevelOutput`` per pyramid level, finest first.
        """
        pyramid = self.neck(self.backbone(images - self._mean))
        levels = [module(level) for module, level in zip(self.context, pyramid, strict=True)]
        outputs: list[LevelOutput] = self.head(levels)
        return outputs
