"""ResNet-18 (He et al. 2016), the larger backbone of every system."""

from __future__ import annotations

import torch
from torch import nn

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import conv_bn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_bn(inputs, outputs, stride=stride, activation=nn.ReLU(inplace=True)),
            *conv_bn(outputs, outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else conv_bn(inputs, outputs, 1, stride)
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: torch.Tensor = self.activation(self.residual(features) + self.shortcut(features))
        return out


def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """One ResNet-18 layer: two basic blocks, the first with the stride."""
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


class ResNet18(nn.Module):
    """ResNet-18 without its classifier: 11.2 M parameters.

    Args:
        finest: stride of the finest feature map: 4 (64 channels) or 8.
    """

    first_layers = ("stem.0", "stem.1", "layer1.0.residual.0", "layer1.0.residual.1")

    def __init__(self, finest: int = 8) -> None:
        super().__init__()
        stages = (Stage(64, 4), Stage(128, 8), Stage(256, 16), Stage(512, 32))
        self.stages = tuple(stage for stage in stages if stage.stride >= finest)
        self.stem = nn.Sequential(
            *conv_bn(3, 64, 7, 2, activation=nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, 1)
        )
        self.layer1 = layer(64, 64, 1)
        self.layer2 = layer(64, 128, 2)
        self.layer3 = layer(128, 256, 2)
        self.layer4 = layer(256, 512, 2)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map (N, 3, H, W) to the feature maps of ``stages``, finest first."""
        finest = self.layer1(self.stem(images))
        fine = self.layer2(finest)
        middle = self.layer3(fine)
        return [finest, fine, middle, self.layer4(middle)][-len(self.stages) :]


class NewResNet18(ResNet18):
    """ISRN's New-ResNet-18 (section 3.2 and figure 2, isrn.txt), whose first layer keeps the size.

    A 3x3 convolution of stride 1 to 16 channels stands for the 7x7 of stride 2, so that tiny faces
    lose nothing; then a residual block of 16 channels, and one of 32 that halves the size. The text
    names no kernel for the first convolution; 3x3 is Root-ResNet's, which it builds on.
    """

    first_layers = ("stem.0", "stem.1", "stem.3.residual.0", "stem.3.residual.1")

    def __init__(self) -> None:
        super().__init__(finest=4)
        self.stem = nn.Sequential(
            *conv_bn(3, 16, activation=nn.ReLU(inplace=True)),
            BasicBlock(16, 16, 1),
            BasicBlock(16, 32, 2),
            nn.MaxPool2d(3, 2, 1),
        )
        self.layer1 = layer(32, 64, 1)
