"""MobileNetV1 at a quarter of its width: RetinaFace's light backbone (section 4.8, retinaface.txt).

Stage names and layer order follow the ImageNet checkpoint that RetinaFace users know, so that it
loads without renaming.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from edgeface.errors import InvalidOptionError
from edgeface.nets.backbones import Stage
from edgeface.nets.layers import conv_bn, rectifier

LEAK = 0.1
FINE_BLOCKS = 4
STEMS = {"3x3": (3, 2), "7x7": (7, 4)}


def depthwise_separable(
    inputs: int, outputs: int, stride: int = 1, *, leak: float = LEAK
) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch norm and leaky ReLU."""
    depthwise = conv_bn(inputs, inputs, stride=stride, groups=inputs, activation=rectifier(leak))
    pointwise = conv_bn(inputs, outputs, 1, activation=rectifier(leak))
    return nn.Sequential(*depthwise, *pointwise)


class MobileNet025(nn.Module):
    """MobileNetV1-0.25 without its classifier: 213 k parameters.

    Args:
        finest: stride of the finest feature map: 4 (32 channels) or 8.
        stem: "3x3" of stride 2, as published, or "7x7" of stride 4, with which RetinaFace reduces
            the picture at once (section 4.8); the next stride of 2 falls away.
        leak: slope of the leaky ReLUs; 0 makes them plain ones.

    Raises:
        InvalidOptionError: another stem.
    """

    first_layers = ("stage1.0", "stage1.1.0", "stage1.1.1")

    def __init__(self, finest: int = 8, stem: str = "3x3", leak: float = LEAK) -> None:
        super().__init__()
        if stem not in STEMS:
            raise InvalidOptionError(f"expected a stem of {', '.join(STEMS)}, got '{stem}'")
        kernel, stride = STEMS[stem]
        stages = (Stage(32, 4), Stage(64, 8), Stage(128, 16), Stage(256, 32))
        self.stages = tuple(stage for stage in stages if stage.stride >= finest)
        block = partial(depthwise_separable, leak=leak)
        self.stage1 = nn.Sequential(
            conv_bn(3, 8, kernel, stride, activation=rectifier(leak)),
            block(8, 16),
            block(16, 32, stride=4 // stride),
            block(32, 32),
            block(32, 64, stride=2),
            block(64, 64),
        )
        self.stage2 = nn.Sequential(block(64, 128, stride=2), *(block(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(block(128, 256, stride=2), block(256, 256))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map (N, 3, H, W) to the feature maps of ``stages``, finest first."""
        finest = self.stage1[:FINE_BLOCKS](images)
        fine = self.stage1[FINE_BLOCKS:](finest)
        middle = self.stage2(fine)
        return [finest, fine, middle, self.stage3(middle)][-len(self.stages) :]


class DirectMobileNet025(MobileNet025):
    """MobileNet-0.25 for 8-bit CPUs: plain ReLUs, and one 3x3 convolution up to 16 channels.

    On the picture's largest maps the published stem has 8 channels and a depthwise convolution,
    which leave most of a vector register empty. All later layers keep their names and shapes, so
    that published weights serve them.
    """

    first_layers = ("stage1.0", "stage1.2.0", "stage1.2.1")

    def __init__(self) -> None:
        super().__init__(leak=0.0)
        self.stage1[0] = conv_bn(3, 16, stride=2, activation=rectifier(0.0))
        self.stage1[1] = nn.Identity()


class FineMobileNet025(MobileNet025):
    """MobileNet-0.25 with the stem of ISRN's New-ResNet-18, whose first layer keeps the size.

    As the rest of the net, it has a quarter of the channels (4, 4 and 8 for 16, 16 and 32) and
    depthwise-separable blocks where a ResNet has residual ones.
    """

    first_layers = ("stage1.0.0", "stage1.0.1.0", "stage1.0.1.1")

    def __init__(self) -> None:
        super().__init__(finest=4)
        self.stage1[0] = nn.Sequential(
            conv_bn(3, 4, activation=rectifier(LEAK)),
            depthwise_separable(4, 4),
            depthwise_separable(4, 8, stride=2),
        )
