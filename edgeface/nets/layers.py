"""Convolution blocks that backbones, necks and context modules share."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
    strided_depthwise = stride > 1 and groups == inputs > 1
    convolution = FullPrecisionConv2d if strided_depthwise else nn.Conv2d
    layers: list[nn.Module] = [
        convolution(inputs, outputs, (height, width), stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation)
    return nn.Sequential(*layers)


class FullPrecisionConv2d(nn.Conv2d):
    """Convolution that autocast leaves in float32.

    For strided depthwise ones, whose gradients in bf16 take a CPU up to nine times as long.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Convolve (N, C, H, W)."""
        device = maps.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(maps)
        with torch.autocast(device, enabled=False):
            return super().forward(maps.float())


def rectifier(leak: float) -> nn.Module:
    """Leaky ReLU of that slope, or the plain one, which runtimes fuse better, where it is 0."""
    return nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)


def separable_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, activation: nn.Module
) -> nn.Sequential:
    """Depthwise, then pointwise ``conv_bn``: the cheap form of one with an activation."""
    return nn.Sequential(
        *conv_bn(inputs, inputs, kernel, stride, groups=inputs),
        *conv_bn(inputs, outputs, 1, activation=activation),
    )


def convolution(inputs: int, outputs: int, *, separable: bool) -> nn.Sequential:
    """3x3 convolution with bias and without norm, or its depthwise-separable form."""
    if not separable:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1))
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
    )


class FixedConvolution(nn.Conv2d):
    """1x1 convolution with a matrix that is no weight: neither trained nor saved.

    What mixes channels by a constant rule exports to every target in this form.

    Args:
        matrix: float (outputs, inputs).
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        outputs, inputs = matrix.shape
        super().__init__(inputs, outputs, 1, bias=False)
        del self.weight
        self.register_buffer("weight", matrix[:, :, None, None].clone(), persistent=False)


def init_xavier(module: nn.Module) -> None:
    """Draw the weights of all convolutions of a module by Xavier's rule, with biases of 0.

    Depthwise kernels are drawn by He's: Xavier's counts inputs that they do not have.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            if layer.groups > 1:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
