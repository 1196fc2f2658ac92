from __future__ import annotations

import numpy as np
import pytest

from edgeface.smoothing import one_euro


def filtered(signal: np.ndarray, fps: float, min_cutoff: float, beta: float) -> np.ndarray:
    value, speed, out = signal[:1], np.zeros(1), []
    for sample in signal:
        step = np.array(1 / fps)
        value, speed = one_euro(sample[None], value, speed, step, min_cutoff=min_cutoff, beta=beta)
        out.append(value[0])
    return np.array(out)


def test_as_the_paper_defines_it() -> None:
    """One step by hand: alpha = 1 / (1 + tau / T), tau = 1 / (2 pi cutoff)."""
    value, speed = one_euro(
        np.array([3.0]), np.array([1.0]), np.array([2.0]), np.array(0.1), min_cutoff=0.5, beta=0.25
    )

    def alpha(cutoff: float) -> float:
        return 1 / (1 + 1 / (2 * np.pi * cutoff) / 0.1)

    expected_speed = alpha(1.0) * (3 - 1) / 0.1 + (1 - alpha(1.0)) * 2
    weight = alpha(0.5 + 0.25 * expected_speed)
    assert speed == pytest.approx([expected_speed])
    assert value == pytest.approx([weight * 3 + (1 - weight) * 1])


def test_noise_at_rest_is_damped() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 500)
    assert filtered(noise, 30, 0.5, 0.0)[100:].std() < 0.4


def test_beta_takes_the_lag_away() -> None:
    ramp = np.arange(100.0)
    lags = [ramp[-1] - filtered(ramp, 30, 0.5, beta)[-1] for beta in (0.0, 1.0)]
    assert lags[0] > 5
    assert lags[1] < 0.5


def test_frame_rate_does_not_matter() -> None:
    slow, fast = (
        filtered(np.ones(rate + 1) * [*[0.0], *[1.0] * rate], rate, 1.0, 0.0)[-1]
        for rate in (50, 500)
    )
    assert slow == pytest.approx(fast, abs=0.02)


def test_no_time_gone() -> None:
    value, speed = one_euro(
        np.array([5.0]), np.array([1.0]), np.zeros(1), np.array(0.0), min_cutoff=1.0, beta=0.0
    )
    assert value == pytest.approx([1.0], abs=1e-6)
    assert np.isfinite(speed).all()
