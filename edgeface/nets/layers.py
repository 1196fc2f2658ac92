"""Convolution blocks that backbones, necks and context modules share."""

from __future__ import annotations

from torch import nn


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, then batch norm.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the square kernel.
        stride: stride of the convolution.
        groups: groups of the convolution; ``inputs`` makes it depthwise.
        activation: module after the batch norm, if any.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation)
    return nn.Sequential(*layers)
