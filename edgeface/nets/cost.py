"""What a net costs to run: multiply-accumulate operations and parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeface.nets.detector import DetectorNet


@dataclass(frozen=True)
class Cost:
    """Cost of one picture.

    Attributes:
        width: of the frame in pixels: the picture's, rounded up to the coarsest stride.
        height: of the frame.
        macs: multiply-accumulates of convolutions, plain, transposed and deformable, and of matrix
            products; what costs little beside them (norms, activations, sampling) is left out.
        parameters: of the net; the modules that exist only in training are not part of it.
    """

    width: int
    height: int
    macs: int
    parameters: int

    @property
    def gmac(self) -> float:
        """Billions of multiply-accumulates."""
        return self.macs / 1e9


def cost(net: DetectorNet, width: int = 640, height: int = 480) -> Cost:
    """Count what a net does to a picture, without computing it.

    Args:
        net: any net; it is not changed.
        width: of the picture in pixels.
        height: of the picture.
    """
    stride = net.anchors.max_stride
    width, height = (-(-side // stride) * stride for side in (width, height))
    deployed = copy.deepcopy(net).eval().to("meta")
    image = torch.empty(1, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        deployed(image)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Cost(width, height, counter.get_total_flops() // 2, parameters)
