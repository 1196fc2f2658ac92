"""Group normalisation (Wu and He 2018): where it is used, and its form that every target runs."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgeface.nets.layers import FixedConvolution


class DeployedGroupNorm(nn.Module):
    """Group norm made of means, products and fixed 1x1 convolutions.

    Groups are formed by convolutions instead of reshapes, whose targets would fix the size of the
    exported graph's input. Unlike a batch norm it cannot be folded into a convolution: it is
    computed on every frame.

    Every mean is taken in two steps, for backends add up one value after the other; over a whole
    map with a constant area, such as a letterbox has, that loses digits. The convolution between
    the steps keeps OpenVINO from merging them.

    Args:
        norm: the trained group norm.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        groups, channels = norm.num_groups, norm.num_channels
        members = torch.eye(groups).repeat_interleave(channels // groups, 0)
        shares = members.T * groups / channels
        self.means = FixedConvolution(shares)
        self.spread = FixedConvolution(members)
        self.variances = FixedConvolution(shares)
        self.variances.bias = nn.Parameter(torch.full((groups,), norm.eps))
        self.scales = FixedConvolution(members * norm.weight.detach()[:, None])
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same shape."""
        columns = self.means(features.mean(2, keepdim=True))
        centred = features - self.spread(columns.mean(3, keepdim=True))
        columns = self.variances((centred * centred).mean(2, keepdim=True))
        scales = self.scales(torch.rsqrt(columns.mean(3, keepdim=True)))
        normal: torch.Tensor = centred * scales + self.bias
        return normal


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
            setattr(module, name, nn.GroupNorm(math.gcd(groups, channels), channels))
        else:
            use_group_norm(child, groups)


def deploy_group_norm(module: nn.Module) -> None:
    """Replace every group norm within a module, in place, by its deployed form."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, DeployedGroupNorm(child))
        else:
            deploy_group_norm(child)
