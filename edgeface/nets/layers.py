"""Convolution blocks that backbones, necks and context modules share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

ConvBlock = Callable[..., nn.Sequential]


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, then batch norm.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the square kernel, or (height, width); odd.
        stride: stride of the convolution.
        groups: groups of the convolution; ``inputs`` makes it depthwise.
        activation: module after the batch norm, if any.
    """
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = height // 2, width // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation)
    return nn.Sequential(*layers)


def init_xavier(module: nn.Module) -> None:
    """Draw the weights of all convolutions of a module by Xavier's rule, with biases of 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
