"""RetinaFace (Deng et al., CVPR 2020) on both backbones."""

from __future__ import annotations

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.context import PerLevel
from edgeface.nets.context.ssh import ContextModule
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead
from edgeface.nets.necks.fpn import FeaturePyramid
from edgeface.nets.registry import preset

# Two sizes per cell on P3 to P5: the light variant of section 4.8, retinaface.txt.
LIGHT_ANCHORS = AnchorSpec(
    (
        AnchorLevel(8, (16.0, 32.0)),
        AnchorLevel(16, (64.0, 128.0)),
        AnchorLevel(32, (256.0, 512.0)),
    )
)
LIGHT_LEAK = 0.1


def _light(backbone: MobileNet025 | ResNet18, width: int) -> DetectorNet:
    anchors = LIGHT_ANCHORS
    return DetectorNet(
        backbone,
        FeaturePyramid(backbone.stages, width, LIGHT_LEAK),
        PerLevel(ContextModule(width, LIGHT_LEAK) for _ in anchors.levels),
        AnchorHead(width, anchors.levels),
        anchors,
    )


@preset("retinaface")
def retinaface_mobilenet025(width: int = 64) -> DetectorNet:
    """RetinaFace's light variant: MobileNet-0.25, P3 to P5, no deformable layers."""
    return _light(MobileNet025(), width)


@preset("retinaface")
def retinaface_resnet18(width: int = 64) -> DetectorNet:
    """RetinaFace on ResNet-18, P3 to P5, no deformable layers."""
    return _light(ResNet18(), width)
