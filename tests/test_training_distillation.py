"""Knowledge distillation: what a teacher's answers cost, that it stays fixed, and who may teach."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.cli.main import main
from edgeface.errors import TrainingError

torch = pytest.importorskip("torch")

from edgeface.anchors import AnchorLevel, AnchorSpec  # noqa: E402
from edgeface.nets import build  # noqa: E402
from edgeface.nets.heads.anchor import LevelOutput  # noqa: E402
from edgeface.training.objectives import TrainingStep, build_objective  # noqa: E402
from edgeface.training.objectives.base import BatchTargets  # noqa: E402
from edgeface.training.objectives.distillation import distillation_loss  # noqa: E402
from edgeface.training.recipe import Phase  # noqa: E402
from edgeface.training.recipes import choose_recipe  # noqa: E402

STUDENT, TEACHER = "retinaface_mobilenet025:width=8", "retinaface_mobilenet025"
SIDE = 32
SPEC = AnchorSpec((AnchorLevel(8, (24.0,)),), (0.25, 0.25))
CELLS = (SIDE // 8) ** 2


def level(margin: torch.Tensor, deltas: torch.Tensor) -> list[LevelOutput]:
    logits = torch.stack([torch.zeros_like(margin), margin], -1)
    return [LevelOutput(logits, deltas, torch.zeros(1, CELLS, 10))]


def losses(margin: torch.Tensor, deltas: torch.Tensor, taught: list[LevelOutput]) -> tuple:
    return distillation_loss(level(margin, deltas), taught, SPEC, (SIDE, SIDE))


def test_scores_cost_their_divergence_by_the_teachers_sum() -> None:
    taught = torch.full((1, CELLS), -20.0)
    taught[0, :4] = 2.0
    teacher = level(taught, torch.zeros(1, CELLS, 4))
    assert losses(taught, torch.zeros(1, CELLS, 4), teacher)[0] == pytest.approx(0, abs=1e-6)
    margin = taught.clone()
    margin[0, 0] = -1.0
    p, q = taught[0, 0].sigmoid(), margin[0, 0].sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    loss = losses(margin, torch.zeros(1, CELLS, 4), teacher)[0]
    assert loss.item() == pytest.approx((divergence / (4 * p)).item(), rel=1e-4)
    margin.requires_grad_()
    losses(margin, torch.zeros(1, CELLS, 4), teacher)[0].backward()
    assert margin.grad is not None
    assert margin.grad[0, 0] < 0
    assert margin.grad[0, 1:].abs().max() < 1e-6


def test_boxes_are_taught_where_the_teacher_sees_faces() -> None:
    taught = torch.full((1, CELLS), -20.0)
    taught[0, 5] = 20.0
    teacher = level(taught, torch.zeros(1, CELLS, 4))
    deltas = torch.zeros(1, CELLS, 4)
    deltas[0, 3] = 1.0
    assert losses(taught, deltas, teacher)[1] == pytest.approx(0, abs=1e-6)
    deltas[0, 5, 2:] = 4 * np.log(2)
    assert losses(taught, deltas, teacher)[1].item() == pytest.approx(1 - 1 / 4, rel=1e-4)


def test_without_faces_the_losses_are_finite() -> None:
    teacher = level(torch.full((1, CELLS), -50.0), torch.zeros(1, CELLS, 4))
    margin = torch.zeros(1, CELLS, requires_grad=True)
    scores, boxes = losses(margin, torch.zeros(1, CELLS, 4), teacher)
    (scores + boxes).backward()
    assert scores.isfinite()
    assert boxes == 0


def test_the_teacher_stays_as_it_is() -> None:
    torch.manual_seed(0)
    net, teacher = build(STUDENT), build(TEACHER).eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    recipe = replace(choose_recipe(STUDENT, "aligned"), teacher_weight=2.0)
    step = TrainingStep(net, build_objective(net, recipe, teacher)).train()
    nothing = BatchTargets(
        *(torch.zeros(0) for _ in range(4)), torch.zeros(0, 4), torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool),
    )  # fmt: skip
    images = torch.rand(2, 3, 64, 64) * 255
    loss = step(images, nothing)
    loss.total.backward()
    assert net.training
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    terms = {name: value.item() for name, value in loss.terms.items()}
    assert terms["taught_scores"] > 0
    own = terms["classes"] + 5 * (terms["boxes"] + terms["landmarks"])
    taught = 2 * (terms["taught_scores"] + 2 * terms["taught_boxes"])
    assert loss.total.item() == pytest.approx(own + taught, rel=1e-4)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    net, recipe = build(STUDENT), choose_recipe(STUDENT, "aligned")
    with pytest.raises(TrainingError, match="a teacher with the anchors of 'retinaface_mobilenet"):
        build_objective(net, recipe, build("edgeface_nano:width=8"))
    with pytest.raises(TrainingError, match="assignment 'aligned' in the recipe of a net with a"):
        build_objective(net, replace(recipe, assignment="anchors"), build(STUDENT))


def test_the_command_learns_from_a_shipped_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "0.png"), picture)
    (tmp_path / "label.txt").write_text("# 0.png\n20 20 40 40\n")
    recipe = replace(choose_recipe(STUDENT, "aligned"), phases=(Phase(2, 64, 2),), held_out=0.0)
    recipe.save(tmp_path / "recipe.json")
    command = ["train", "--preset", STUDENT, "--recipe", str(tmp_path / "recipe.json")]
    command += ["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--workers", "0"]
    command += ["--output", str(tmp_path / "run")]
    assert main([*command, "--teacher", TEACHER]) == 0
    with (tmp_path / "run" / "log.csv").open() as file:
        assert float(next(csv.DictReader(file))["taught_scores"]) > 0
    assert main([*command[:-1], str(tmp_path / "other"), "--teacher", "nobody"]) != 0
    assert "got 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
