"""Two processes learn what one process with the doubled batch learns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import distributed  # noqa: E402

from edgeface.anchors import AnchorLevel, AnchorSpec, prior_boxes  # noqa: E402
from edgeface.nets import DetectorNet  # noqa: E402
from edgeface.nets.context import PerLevel  # noqa: E402
from edgeface.nets.heads.anchor import AnchorHead  # noqa: E402
from edgeface.nets.layers import conv_bn  # noqa: E402
from edgeface.training.objectives import BatchTargets, TrainingStep, build_objective  # noqa: E402
from edgeface.training.objectives.base import largest_of_all, mean_count  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

PROCESSES, SIZE = 2, 64
ANCHORS = AnchorSpec((AnchorLevel(16, (32.0, 48.0)),))
# Positives of each of the four samples: processes get unlike shares, and one of them no face.
POSITIVES = ([3, 7, 12], [20], [], [])


def batch(samples: list[int]) -> tuple[torch.Tensor, BatchTargets]:
    """A batch of these samples, each the same wherever it lies."""
    anchors = len(prior_boxes(ANCHORS, SIZE, SIZE))
    labels = torch.zeros(len(samples), anchors, dtype=torch.int8)
    images, positives, deltas, landmarks = [], [], [], []
    for row, sample in enumerate(samples):
        generator = torch.Generator().manual_seed(sample)
        images.append(255 * torch.rand(3, SIZE, SIZE, generator=generator))
        count = len(POSITIVES[sample])
        labels[row, POSITIVES[sample]] = 1
        positives += [row * anchors + number for number in POSITIVES[sample]]
        deltas.append(torch.randn(count, 4, generator=generator))
        landmarks.append(torch.randn(count, 10, generator=generator))
    targets = BatchTargets(
        labels, torch.tensor(positives, dtype=torch.int64), torch.cat(deltas),
        torch.cat(landmarks), torch.zeros(0, 4), torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool),
    )  # fmt: skip
    return torch.stack(images), targets


def make_step() -> TrainingStep:
    """Net and objective; batch norm in evaluation mode, for its statistics are each process's."""
    torch.manual_seed(0)

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 8, 3, 16)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.stem(images / 60)]

    head = AnchorHead(8, ANCHORS.levels)
    net = DetectorNet(
        Backbone(), torch.nn.Identity(), PerLevel([torch.nn.Identity()]), head, ANCHORS
    )
    step = TrainingStep(net, build_objective(net, Recipe("", landmark_weight=0.1)))
    return step.eval()


def outcome(samples: list[int], *, parallel: bool) -> dict[str, Any]:
    """Total loss and gradients."""
    step = make_step()
    model = torch.nn.parallel.DistributedDataParallel(step) if parallel else step
    losses = model(*batch(samples))
    losses.total.backward()
    gradients = {name: value.grad for name, value in step.named_parameters()}
    return {"loss": losses.total.detach(), "gradients": gradients}


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES
    )
    share = [[0, 2], [1, 3]][rank]
    result = outcome(share, parallel=True)
    values = torch.tensor([[9.0, 1.0, 8.0, 7.0], [6.0, 8.5]][rank])
    result["largest"] = values[largest_of_all(values, 4)]
    result["few"] = mean_count(rank, values)
    result["none"] = largest_of_all(values[: rank * 2], 5)
    torch.save(result, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    started = [subprocess.Popen([*command, str(rank)]) for rank in range(PROCESSES)]
    assert [one.wait(timeout=300) for one in started] == [0] * PROCESSES
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES))
    single = outcome([0, 2, 1, 3], parallel=False)
    assert ((first["loss"] + second["loss"]) / 2).item() == pytest.approx(
        single["loss"].item(), rel=1e-5
    )
    assert first["loss"].item() != pytest.approx(second["loss"].item(), rel=1e-2)
    for name, gradient in single["gradients"].items():
        for rank in (first, second):
            np.testing.assert_allclose(
                rank["gradients"][name], gradient, atol=1e-5, rtol=1e-3, err_msg=name
            )
    assert first["largest"].tolist() == [9, 8, 7]
    assert second["largest"].tolist() == [8.5]
    assert first["few"] == second["few"] == 0.5
    assert (len(first["none"]), len(second["none"])) == (0, 2)


if __name__ == "__main__":
    process(int(sys.argv[2]), Path(sys.argv[1]))
