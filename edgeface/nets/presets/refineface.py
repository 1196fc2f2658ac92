"""RefineFace (Zhang et al. 2019, refineface.txt) on both backbones."""

from __future__ import annotations

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.two_step import TwoStepHead
from edgeface.nets.necks.two_step import TwoStepPyramid
from edgeface.nets.registry import preset

# Sides 2S and 2 sqrt(2) S at stride S, 1.25 times as high as wide (section 3.6): 8 to 362 pixels.
# At 1024 x 1024 that is 174,720 anchors, 98.5 % of them on P2 to P4. The paper says about 300,000
# and 88.9 % of the same geometry, which no count of it gives; we follow the geometry.
TWO_STEP_ANCHORS = AnchorSpec(
    tuple(
        AnchorLevel(stride, (2.0 * stride, 2.0 * 2**0.5 * stride), (1.25,))
        for stride in (4, 8, 16, 32, 64, 128)
    )
)


def two_step_net(
    backbone: nn.Module,
    *,
    width: int,
    stc: bool,
    str: bool,
    rfe: bool,
    separable: bool,
    context: nn.Module | None = None,
) -> DetectorNet:
    """Compose a two-step detector on a backbone whose stages are C2 to C5."""
    anchors = TWO_STEP_ANCHORS
    return DetectorNet(
        backbone,
        TwoStepPyramid(
            backbone.stages,  # type: ignore[arg-type]
            width,
            classified_twice=stc,
            refined_twice=str,
            separable=separable,
        ),
        context or nn.Identity(),
        TwoStepHead(width, anchors, refined_twice=str, rfe=rfe, separable=separable),
        anchors,
    )


@preset("refineface")
def refineface_mobilenet025(
    width: int = 48, str: bool = True, stc: bool = True, rfe: bool = True, separable: bool = True
) -> DetectorNet:
    """RefineFace on MobileNet-0.25: narrow, with depthwise-separable pyramid and subnets."""
    return two_step_net(
        MobileNet025(finest=4), width=width, stc=stc, str=str, rfe=rfe, separable=separable
    )


@preset("refineface")
def refineface_resnet18(
    width: int = 64, str: bool = True, stc: bool = True, rfe: bool = True, separable: bool = False
) -> DetectorNet:
    """RefineFace on ResNet-18, the paper's fastest; width=256 is the paper's."""
    return two_step_net(
        ResNet18(finest=4), width=width, stc=stc, str=str, rfe=rfe, separable=separable
    )
