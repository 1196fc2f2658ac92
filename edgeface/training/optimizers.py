"""A recipe's optimisers: torch's SGD, AdamW, and Muon, which is put to convolutions here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edgeface.training.recipe import Recipe

# Muon's steps are as long as AdamW's (Liu et al. 2025), so that one learning rate serves both.
LIKE_ADAMW = "match_rms_adamw"
SECOND_BETA = 0.999


class ConvolutionMuon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) on kernels, each as the matrix of its outputs by its inputs.

    It steps by the nearest matrix to the momentum that has orthogonal rows or columns, so that
    every direction of a layer learns alike. With ResNet-18's 512 channels that is a quarter of a
    training step's time on a CPU.

    Args:
        kernels: float (outputs, inputs, height, width).
        weight_decay: AdamW's kind: times the learning rate.
        momentum: Nesterov's.
    """

    def __init__(
        self, kernels: Sequence[nn.Parameter], weight_decay: float, momentum: float
    ) -> None:
        self._kernels = list(kernels)
        self._matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
        super().__init__(
            self._matrices,
            lr=1.0,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn=LIKE_ADAMW,
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the kernels by their gradients."""
        pairs = list(zip(self._kernels, self._matrices, strict=True))
        for kernel, matrix in pairs:
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        loss = super().step(closure)  # type: ignore[no-untyped-call]
        for kernel, matrix in pairs:
            kernel.copy_(matrix.view_as(kernel))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        super().zero_grad(set_to_none)
        for kernel in self._kernels:
            kernel.grad = None


def build_optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The recipe's optimisers for what a module learns; the loop sets their learning rates.

    Weights of convolutions decay; biases and batch norms do not. Muon takes the convolutions that
    mix channels, and AdamW the rest.
    """
    learnt = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        mixing = [p for p in learnt if _mixes_channels(p)]
        others = [p for p in learnt if not _mixes_channels(p)]
        return [
            ConvolutionMuon(mixing, recipe.weight_decay, recipe.momentum),
            torch.optim.AdamW(_decaying(others, recipe.weight_decay), lr=1.0),
        ]
    groups = _decaying(learnt, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        betas = recipe.momentum, SECOND_BETA
        return [torch.optim.AdamW(groups, lr=1.0, betas=betas)]
    return [torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum)]


def _mixes_channels(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 4 and parameter.shape[1] > 1


def _decaying(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
