"""Deformable convolution (Dai et al. 2017), modulated as in its second version (Zhu et al. 2018).

RetinaFace cites both (section 4.2, retinaface.txt); the second with all modulations at 1 is the
first. It is built of plain operators, so that it trains on any torch and exports without a custom
one: the map is sampled where every tap of every cell looks, three times as high and wide, and a
convolution of stride 3 applies the kernel to it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

TAPS = 3


class DeformableConv2d(nn.Module):
    """3x3 convolution whose taps learn where to look, stride 1, padded with zeros.

    A convolution beside it gives each tap of each cell an offset (y, x) in cells and a modulation
    from 0 to 1. It starts at zero: no offset, and modulations of one half.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sampling = nn.Conv2d(inputs, 3 * TAPS**2, TAPS, padding=TAPS // 2)
        self.convolution = nn.Conv2d(inputs, outputs, TAPS, stride=TAPS, bias=False)
        nn.init.zeros_(self.sampling.weight)
        nn.init.zeros_(self.sampling.bias)  # type: ignore[arg-type]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        choices = functional.pixel_shuffle(self.sampling(features), TAPS)
        sampled = sample_taps(features, choices[:, :2])
        out: torch.Tensor = self.convolution(sampled * choices[:, 2:].sigmoid().to(sampled.dtype))
        return out


def sample_taps(features: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Sample a map bilinearly at the taps of a 3x3 kernel around every cell; zero outside.

    Args:
        features: (N, C, H, W).
        offsets: (N, 2, 3H, 3W), y and x in cells: tap (i, j) of cell (r, c) at (3r + i, 3c + j).

    Returns:
        (N, C, 3H, 3W), in the same order.
    """
    rows, columns = features.shape[2:]
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    y = _tap_positions(rows, offsets)[:, None] + offsets[:, 0]
    x = _tap_positions(columns, offsets) + offsets[:, 1]
    grid = torch.stack([(2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1], -1)
    sampled = functional.grid_sample(features.to(grid.dtype), grid, align_corners=False)
    return sampled.to(features.dtype)


def _tap_positions(cells: int, like: torch.Tensor) -> torch.Tensor:
    """Undeformed positions of all taps along one axis: -1, 0, 1, 0, 1, 2, 1, 2, 3 and so on."""
    taps = torch.arange(TAPS * cells, dtype=like.dtype, device=like.device)
    # Half a tap more, so that no backend's rounding of the division reaches the next cell.
    return taps - (TAPS - 1) * ((taps + 0.5) / TAPS).floor() - TAPS // 2


def deformable_bn(
    inputs: int, outputs: int, *, activation: nn.Module | None = None
) -> nn.Sequential:
    """Deformable convolution, then batch norm; the arguments are those of ``conv_bn``."""
    layers: list[nn.Module] = [DeformableConv2d(inputs, outputs), nn.BatchNorm2d(outputs)]
    if activation is not None:
        layers.append(activation)
    return nn.Sequential(*layers)
