"""ISRN, the Improved Selective Refinement Network (Zhang et al. 2019, isrn.txt).

Its detector is RefineFace's: STC, STR and RFE (section 2). Its own are the backbone's stem, group
norm from scratch, and data-anchor-sampling (``Mix.anchor_sampling``). Of what its section 5 tried
and dropped, two parts are here as switches, off by default: Squeeze-and-Excitation on the detection
features (``se``; it cost the paper 0.2, 0.2 and 0.4 points of AP) and the segmentation branch (the
training term ``segmentation``; "the final results drop a bit on three metrics"). Its decoupled
classification refinement, a second network on crops, is not.
"""

from __future__ import annotations

from edgeface.nets.backbones.mobilenet import FineMobileNet025
from edgeface.nets.backbones.resnet import NewResNet18
from edgeface.nets.context.excitation import ExcitedLevels
from edgeface.nets.detector import DetectorNet
from edgeface.nets.group_norm import use_group_norm
from edgeface.nets.presets.refineface import TWO_STEP_ANCHORS, two_step_net
from edgeface.nets.registry import preset

# Section 3.3. Narrow layers of MobileNet-0.25 have fewer channels, and so fewer groups.
GROUPS = 16


def _isrn(
    backbone: FineMobileNet025 | NewResNet18,
    width: int,
    str: bool,
    stc: bool,
    rfe: bool,
    se: bool,
    group_norm: bool,
    separable: bool,
) -> DetectorNet:
    context = ExcitedLevels(width, len(TWO_STEP_ANCHORS.levels)) if se else None
    net = two_step_net(
        backbone, width=width, str=str, stc=stc, rfe=rfe, separable=separable, context=context
    )
    if group_norm:
        use_group_norm(net, GROUPS)
    return net


@preset("isrn")
def isrn_mobilenet025(
    width: int = 48,
    str: bool = True,
    stc: bool = True,
    rfe: bool = True,
    se: bool = False,
    group_norm: bool = True,
    separable: bool = True,
) -> DetectorNet:
    """ISRN on MobileNet-0.25 with a full-size stem, group norm, separable pyramid and subnets."""
    return _isrn(FineMobileNet025(), width, str, stc, rfe, se, group_norm, separable)


@preset("isrn")
def isrn_resnet18(
    width: int = 64,
    str: bool = True,
    stc: bool = True,
    rfe: bool = True,
    se: bool = False,
    group_norm: bool = True,
    separable: bool = False,
) -> DetectorNet:
    """ISRN on New-ResNet-18 with group norm; width=256 is the paper's."""
    return _isrn(NewResNet18(), width, str, stc, rfe, se, group_norm, separable)
