"""FANet (Feature Agglomeration Networks, Zhang et al. 2017) on both backbones."""

from __future__ import annotations

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.errors import InvalidOptionError
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.hierarchy import HierarchyHead
from edgeface.nets.necks.agglomeration import DEEP_SHARE, DEEPEST, AgglomerationPyramid
from edgeface.nets.registry import preset

# One square anchor per cell, 16 to 512 pixels (section 3.3, fanet.txt).
ANCHORS = AnchorSpec(
    tuple(AnchorLevel(stride, (4.0 * stride,)) for stride in (4, 8, 16, 32, 64, 128))
)


def _fanet(
    backbone: MobileNet025 | ResNet18, width: int, hierarchy: int, context: bool
) -> DetectorNet:
    if width < DEEP_SHARE or width % DEEP_SHARE:
        raise InvalidOptionError(f"expected a width in multiples of {DEEP_SHARE}, got {width}")
    if not 1 <= hierarchy <= DEEPEST:
        raise InvalidOptionError(f"expected a hierarchy of 1 to {DEEPEST}, got {hierarchy}")
    neck = AgglomerationPyramid(backbone.stages, width, hierarchy, context)
    head = HierarchyHead(neck.channels[-1], ANCHORS.levels)
    return DetectorNet(backbone, neck, nn.Identity(), head, ANCHORS)


@preset("fanet")
def fanet_mobilenet025(width: int = 32, hierarchy: int = 3, context: bool = True) -> DetectorNet:
    """FANet on MobileNet-0.25: agglomeration connections, six levels.

    Args:
        width: channels of agglomerated maps, a multiple of 8; the paper has 256.
        hierarchy: pyramids that are agglomerated one from another, 1 to 4; the paper has 3.
        context: four branches that enhance the shallow map of each A-block.
    """
    return _fanet(MobileNet025(finest=4), width, hierarchy, context)


@preset("fanet")
def fanet_resnet18(width: int = 64, hierarchy: int = 3, context: bool = True) -> DetectorNet:
    """FANet on ResNet-18: agglomeration connections, six levels.

    Args:
        width: channels of agglomerated maps, a multiple of 8; the paper has 256.
        hierarchy: pyramids that are agglomerated one from another, 1 to 4; the paper has 3.
        context: four branches that enhance the shallow map of each A-block.
    """
    return _fanet(ResNet18(finest=4), width, hierarchy, context)
