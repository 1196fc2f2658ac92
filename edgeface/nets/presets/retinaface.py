"""RetinaFace (Deng et al., CVPR 2020) on both backbones."""

from __future__ import annotations

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.context import PerLevel
from edgeface.nets.context.ssh import ContextModule
from edgeface.nets.deformable import deformable_bn
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead, SharedAnchorHead
from edgeface.nets.layers import ConvBlock, conv_bn
from edgeface.nets.necks.fpn import CoarserLevel, FeaturePyramid
from edgeface.nets.registry import preset

# Two sizes per cell on P3 to P5: the light variant of section 4.8, retinaface.txt.
LIGHT_ANCHORS = AnchorSpec(
    (
        AnchorLevel(8, (16.0, 32.0)),
        AnchorLevel(16, (64.0, 128.0)),
        AnchorLevel(32, (256.0, 512.0)),
    )
)
LEAK = 0.1

# Three sizes per cell, a step of 2^(1/3), on P2 to P6: table 2 of retinaface.txt.
HEAVY_ANCHORS = AnchorSpec(
    tuple(
        AnchorLevel(stride, tuple(4 * stride * 2 ** (step / 3) for step in range(3)))
        for stride in (4, 8, 16, 32, 64)
    )
)


def _light(backbone: MobileNet025 | ResNet18, width: int, context: bool) -> DetectorNet:
    anchors = LIGHT_ANCHORS
    return DetectorNet(
        backbone,
        FeaturePyramid(backbone.stages, width, LEAK),
        _contexts(width, anchors, conv_bn, context),
        AnchorHead(width, anchors.levels),
        anchors,
    )


def _heavy(
    backbone: MobileNet025 | ResNet18, width: int, deformable: bool, context: bool
) -> DetectorNet:
    anchors, stages = HEAVY_ANCHORS, backbone.stages
    block: ConvBlock = deformable_bn if deformable else conv_bn
    pyramid = FeaturePyramid(stages, width, LEAK, block)
    return DetectorNet(
        backbone,
        CoarserLevel(pyramid, stages[-1].channels, width, LEAK),
        _contexts(width, anchors, block, context),
        SharedAnchorHead(width, anchors.levels),
        anchors,
    )


def _contexts(width: int, anchors: AnchorSpec, block: ConvBlock, context: bool) -> PerLevel:
    return PerLevel(
        ContextModule(width, LEAK, block) if context else nn.Identity() for _ in anchors.levels
    )


@preset("retinaface")
def retinaface_mobilenet025(
    width: int = 64,
    stem: str = "3x3",
    heavy: bool = False,
    deformable: bool = True,
    context: bool = True,
) -> DetectorNet:
    """RetinaFace on MobileNet-0.25: the light variant, P3 to P5, or the heavy one.

    Args:
        width: channels of the pyramid; the paper has 256.
        stem: "7x7" for the stem of stride 4 (section 4.8).
        heavy: P2 to P6, three sizes per cell, one head for all levels (section 4.2).
        deformable: deformable convolutions in the heavy variant's neck and context modules.
        context: context modules, which table 3 adds to the bare pyramid.
    """
    if heavy:
        return _heavy(MobileNet025(finest=4, stem=stem), width, deformable, context)
    return _light(MobileNet025(stem=stem), width, context)


@preset("retinaface")
def retinaface_resnet18(
    width: int = 64, heavy: bool = False, deformable: bool = True, context: bool = True
) -> DetectorNet:
    """RetinaFace on ResNet-18: the light variant, P3 to P5, or the heavy one.

    Args:
        width: channels of the pyramid; the paper has 256.
        heavy: P2 to P6, three sizes per cell, one head for all levels (section 4.2).
        deformable: deformable convolutions in the heavy variant's neck and context modules.
        context: context modules, which table 3 adds to the bare pyramid.
    """
    if heavy:
        return _heavy(ResNet18(finest=4), width, deformable, context)
    return _light(ResNet18(), width, context)
