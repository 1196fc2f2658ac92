"""DF2S2 (Detection with Feature Fusion and Segmentation Supervision, Tian et al. 2018)."""

from __future__ import annotations

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.context import PerLevel
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.tower import TowerHead
from edgeface.nets.layers import conv_bn
from edgeface.nets.necks.fpn import FeaturePyramid
from edgeface.nets.necks.fusion import FusionPyramid, PooledLevels
from edgeface.nets.registry import preset

STRIDES = (4, 8, 16, 32, 64, 128)
POOLED = 2
LEAK = 0.0

# Four times the stride, in ratios of 1 and 1.5 (section 3.4, df2s2.txt): two anchors per cell.
# Section 3.1 says A = 6 "in most experiments", for which it names no sizes; the geometry counts.
ANCHORS = AnchorSpec(tuple(AnchorLevel(stride, (4.0 * stride,), (1.0, 1.5)) for stride in STRIDES))


def _df2s2(backbone: MobileNet025 | ResNet18, width: int, fusion: bool) -> DetectorNet:
    [anchors_per_cell] = {level.per_cell for level in ANCHORS.levels}
    pyramid: nn.Module
    if fusion:
        pyramid = FusionPyramid(backbone.stages)
        channels = [stage.channels for stage in backbone.stages]
    else:
        pyramid = FeaturePyramid(backbone.stages, width, LEAK)
        channels = [width] * len(backbone.stages)
    channels += channels[-1:] * POOLED
    return DetectorNet(
        backbone,
        nn.Sequential(pyramid, PooledLevels(POOLED)),
        PerLevel(
            conv_bn(inputs, width, 1, activation=nn.ReLU(inplace=True)) for inputs in channels
        ),
        TowerHead(width, anchors_per_cell),
        ANCHORS,
    )


@preset("df2s2")
def df2s2_mobilenet025(width: int = 32, fusion: bool = True) -> DetectorNet:
    """DF2S2 on MobileNet-0.25: feature fusion pyramid, P2 to P7, one shared tower.

    The fused maps keep the backbone's channels (section 3.1), but a tower that all levels share
    needs one width: a 1x1 convolution per level, of which the paper says nothing, brings them to
    it.

    Args:
        width: channels of the tower; the paper has 256.
        fusion: feature fusion; off, the feature pyramid that table 2 compares it with.
    """
    return _df2s2(MobileNet025(finest=4), width, fusion)


@preset("df2s2")
def df2s2_resnet18(width: int = 64, fusion: bool = True) -> DetectorNet:
    """DF2S2 on ResNet-18: feature fusion pyramid, P2 to P7, one shared tower.

    Args:
        width: channels of the tower; the paper has 256.
        fusion: feature fusion; off, the feature pyramid that table 2 compares it with.
    """
    return _df2s2(ResNet18(finest=4), width, fusion)
