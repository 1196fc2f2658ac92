"""The focal loss, against values computed by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from edgeface.training.objectives.focal import focal_loss  # noqa: E402


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([0.0, 0.0, math.log(4.0), math.log(4.0)])
    losses = focal_loss(logits, torch.tensor([1, 0, 1, 0]), 0.25, 2.0)
    expected = [
        0.25 * 0.5**2 * math.log(2),
        0.75 * 0.5**2 * math.log(2),
        0.25 * 0.2**2 * -math.log(0.8),
        0.75 * 0.8**2 * -math.log(0.2),
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-6)


def test_gamma_zero_is_cross_entropy_and_large_logits_stay_finite() -> None:
    logits = torch.tensor([-200.0, 200.0, 1.5], requires_grad=True)
    faces = torch.tensor([True, False, True])
    plain = focal_loss(logits, faces, 0.5, 0.0)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, faces.float(), reduction="none"
    )
    torch.testing.assert_close(plain, wanted / 2)
    focal_loss(logits, faces, 0.25, 2.0).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
