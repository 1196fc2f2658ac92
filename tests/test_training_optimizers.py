"""Optimisers: which one a parameter learns by, and Muon's steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.training.optimizers import ConvolutionMuon, build_optimizers  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

PRESET = "retinaface_mobilenet025"
RATE, DECAY = 0.1, 0.5


def muon(kernel: torch.nn.Parameter, decay: float = 0.0) -> ConvolutionMuon:
    optimizer = ConvolutionMuon([kernel], decay, 0.95)
    optimizer.param_groups[0]["lr"] = RATE
    return optimizer


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_muon_is_orthogonal_and_as_long_as_adamws(memory_format: object) -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(16, 8, 3, 3).to(memory_format=memory_format))
    before, gradient = kernel.detach().clone(), torch.randn(16, 8, 3, 3)
    kernel.grad = gradient.clone()
    muon(kernel).step()
    step = (before - kernel.detach()).flatten(1)
    left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    assert torch.nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), 0) > 0.95
    assert step.square().mean().sqrt() == pytest.approx(0.2 * RATE, rel=0.3)
    assert kernel.is_contiguous(memory_format=memory_format)


def test_muon_decays_kernels_and_leaves_those_without_a_gradient() -> None:
    kernel = torch.nn.Parameter(torch.ones(4, 4, 1, 1))
    kernel.grad = torch.zeros(4, 4, 1, 1)
    optimizer = muon(kernel, DECAY)
    optimizer.step()
    assert kernel.detach() == pytest.approx(torch.full((4, 4, 1, 1), 1 - RATE * DECAY))
    optimizer.zero_grad()
    assert kernel.grad is None
    before = kernel.detach().clone()
    optimizer.step()
    assert torch.equal(kernel.detach(), before)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_each_parameter_has_one_optimizer_and_norms_do_not_decay(name: str) -> None:
    net = build(PRESET)
    optimizers = build_optimizers(net, replace(Recipe(PRESET), optimizer=name))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    sizes = sorted(p.numel() for group in groups for p in group["params"])
    assert sizes == sorted(p.numel() for p in net.parameters())
    assert all(
        group["weight_decay"] == 0 for group in groups for p in group["params"] if p.ndim < 2
    )


def test_muon_leaves_depthwise_kernels_to_adamw() -> None:
    net = build(PRESET)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    kernels, others = build_optimizers(net, replace(Recipe(PRESET), optimizer="muon"))
    mixing = sum(c.groups == 1 for c in convolutions)
    assert isinstance(kernels, ConvolutionMuon)
    assert 0 < mixing == len(kernels.param_groups[0]["params"]) < len(convolutions)
    assert isinstance(others, torch.optim.AdamW)
