"""Group normalisation (Wu and He 2018), in a form that every target runs."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgeface.nets.layers import FixedConvolution


class GroupNorm(nn.GroupNorm):
    """Group norm that, outside training, is made of means, products and fixed convolutions.

    Groups are formed by convolutions instead of reshapes, whose targets would fix the size of the
    exported graph's input. Unlike a batch norm it cannot be folded into a convolution: it is
    computed on every frame.
    """

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        members = torch.eye(groups).repeat_interleave(channels // groups, 0)
        self.gather = FixedConvolution(members.T * groups / channels)
        self.spread = FixedConvolution(members)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same shape."""
        if self.training:
            trained: torch.Tensor = super().forward(features)
            return trained
        means = self.gather(mean_of_maps(features))
        centred = features - self.spread(means)
        variances = self.gather(mean_of_maps(centred * centred))
        scale = self.spread(torch.rsqrt(variances + self.eps)) * self.weight[:, None, None]
        normal: torch.Tensor = centred * scale + self.bias[:, None, None]
        return normal


def mean_of_maps(features: torch.Tensor) -> torch.Tensor:
    """Means (N, C, 1, 1) of maps, row by row first.

    Backends add up one value after the other; over a whole map with a constant area, such as a
    letterbox has, that loses digits. OpenVINO merges the two means again and does lose them.
    """
    return features.mean(3, keepdim=True).mean(2, keepdim=True)


def use_group_norm(module: nn.Module, groups: int) -> None:
    """Replace every batch norm within a module by group norm.

    Args:
        module: changed in place.
        groups: groups of a layer; where they do not divide its channels, their greatest common
            divisor with them.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            channels = child.num_features
            setattr(module, name, GroupNorm(math.gcd(groups, channels), channels))
        else:
            use_group_norm(child, groups)
