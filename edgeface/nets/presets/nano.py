"""edgeface's own detector for small CPUs; the published systems have their own modules."""

from __future__ import annotations

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.nets.backbones.mobilenet import DirectMobileNet025
from edgeface.nets.context import PerLevel
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead
from edgeface.nets.layers import rectifier, separable_bn
from edgeface.nets.necks.fpn import FeaturePyramid
from edgeface.nets.registry import preset

# One square per cell; a face learns at the cells that box it best (``objectives.aligned``), so a
# level's size is the middle of what it sees. Units of the deltas are about a stride.
ANCHORS = AnchorSpec(
    (AnchorLevel(8, (24.0,)), AnchorLevel(16, (80.0,)), AnchorLevel(32, (256.0,))),
    variances=(0.25, 0.25),
)
# Every anchor starts as a face with this probability (RetinaNet, Lin et al. 2017, section 4.1).
PRIOR = 0.01


@preset("nano")
def edgeface_nano(width: int = 64, depth: int = 2) -> DetectorNet:
    """Ours, not a paper's: separable convolutions, plain ReLUs and one anchor per cell, P3 to P5.

    Args:
        width: channels of the pyramid.
        depth: separable 3x3 convolutions between a pyramid level and its predictions.
    """
    backbone = DirectMobileNet025()
    return DetectorNet(
        backbone,
        FeaturePyramid(backbone.stages, width, leak=0.0, smoothing=separable_bn),
        PerLevel(
            nn.Sequential(
                *(separable_bn(width, width, activation=rectifier(0.0)) for _ in range(depth))
            )
            for _ in ANCHORS.levels
        ),
        AnchorHead(width, ANCHORS.levels, PRIOR),
        ANCHORS,
    )
