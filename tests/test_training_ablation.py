"""Ablations: switches, the papers' tables, resumption, and error bars that say what they should."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.cli.main import main
from edgeface.errors import InvalidOptionError
from edgeface.nets import build, find_preset, presets
from edgeface.training.ablation import run as ablation_run
from edgeface.training.ablation.arms import apply, parse_arm, shown
from edgeface.training.ablation.tables import TABLES, find_table
from edgeface.training.objectives import build_objective, training_terms
from edgeface.training.recipes import choose_recipe

PRESET = "retinaface_mobilenet025"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of noise with one bright 'face' each."""
    root = tmp_path_factory.mktemp("faces")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        image = rng.integers(0, 120, (96, 128, 3), np.uint8)
        x, y, side = int(rng.integers(5, 60)), int(rng.integers(5, 40)), int(rng.integers(24, 50))
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (90, 160, 230), -1)
        cv2.imwrite(str(root / "images" / f"{number}.png"), image)
        lines.append(f"# {number}.png\n{x} {y} {side} {side}")
    (root / "label.txt").write_text("\n".join(lines) + "\n")
    return root


def test_switches_reach_options_and_recipe() -> None:
    recipe = choose_recipe(PRESET, "short")
    arm = parse_arm(
        "small: width=32, landmark_weight=0.5, matching.positive=0.4, size=64, crop=0.5-1, "
        "classification=focal, fixed_layers=on"
    )
    preset, changed = apply(arm.switches, PRESET, recipe)
    assert (arm.name, preset) == ("small", f"{PRESET}:width=32")
    assert (changed.preset, changed.landmark_weight) == (preset, 0.5)
    assert (changed.matching.positive, changed.classification) == (0.4, "focal")
    assert {(p.size, p.crop, p.steps) for p in changed.phases} == {(64, (0.5, 1.0), recipe.steps)}
    assert [shown(name, preset, changed) for name in arm.switches] == [
        "32", "0.5", "0.4", "64", "0.5-1", "focal", "✓",
    ]  # fmt: skip
    assert not apply({"fixed_layers": "off"}, PRESET, changed)[1].fixed_layers
    assert apply({}, PRESET, recipe) == (PRESET, recipe)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (": width=32", "NAME: option=value"),
        ("a: width", "NAME=VALUE"),
        ("a: width=wide", "NAME=int"),
        ("a: landmark_weight=much", "a value for 'landmark_weight'"),
        ("a: crop=0.5", "a value for 'crop'"),
        ("a: fixed_layers=2", "a value for 'fixed_layers'"),
        ("a: magic=on", r"one of its options \(.*width.*got 'magic'"),
        ("a: mix.magic=1", "got 'mix.magic'"),
        ("a: seed=3", "got 'seed'"),
    ],
)
def test_bad_switches(text: str, expected: str) -> None:
    with pytest.raises(InvalidOptionError, match=expected):
        apply(parse_arm(text).switches, PRESET, choose_recipe(PRESET, "short"))


def test_every_training_term_switches_on_and_off() -> None:
    for preset in presets():
        short = choose_recipe(preset, "short")
        for term, strength in training_terms(preset).items():
            cases = {"off": (0.0, ""), "0.5": (0.5, "✓" if strength == 0.5 else "0.5")}
            if strength:
                cases["on"] = (strength, "✓")
            else:  # a part that its paper dropped has no strength of its own
                with pytest.raises(InvalidOptionError, match=f"a value for '{term}'"):
                    apply({term: "on"}, preset, short)
            for value, (expected, cell) in cases.items():
                _, recipe = apply({term: value}, preset, short)
                assert recipe.strength(term, -1.0) == expected
                assert shown(term, preset, recipe) == cell


def test_the_papers_tables_have_their_rows() -> None:
    assert {name: len(table.rows) for name, table in TABLES.items()} == {
        "retinaface-3": 5, "refineface-1": 10, "df2s2-2": 5, "fanet-2": 6,
    }  # fmt: skip
    refineface = TABLES["refineface-1"]
    assert [arm.name for arm in refineface.arms()][6] == "STR + STC"
    assert refineface.ticks(6) == {"STR": "✓", "STC": "✓", "RFE": "", "SML": "", "FSM": ""}
    with pytest.raises(InvalidOptionError, match="expected a table of retinaface-3"):
        find_table("table-1", PRESET)
    with pytest.raises(InvalidOptionError, match="a preset of fanet"):
        find_table("fanet-2", PRESET)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        (name, preset)
        for name, table in TABLES.items()
        for preset in presets()
        if find_preset(preset).system == table.system
    ],
)
def test_the_papers_rows_differ_in_what_they_train(name: str, preset: str) -> None:
    recipe = choose_recipe(preset, "short")
    variants = [apply(arm.switches, preset, recipe) for arm in TABLES[name].arms()]
    assert len(set(variants)) == len(variants)
    for specification, changed in variants:
        build_objective(build(specification), changed)


def ablate(folder: Path, output: Path, *options: str) -> int:
    return main(
        [
            "ablate", "--data", str(folder), "--cache", str(output.parent / "cache"),
            "--preset", PRESET, "--output", str(output), "--workers", "0", "--device", "cpu",
            "--set", "size=64, batch=2, held_out=0.5, width=16", "--long-side", "64", *options,
        ]
    )  # fmt: skip


ARMS = ("--arm", "as it is", "--arm", "no landmarks: landmark_weight=0")


def trained(output: Path) -> dict[str, list[int]]:
    """Logged steps of each run."""
    logs = {}
    for path in sorted(output.glob("*/*/log.csv")):
        with path.open() as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        logs[str(path.parent.relative_to(output))] = steps
    return logs


def test_an_ablation_survives_a_kill_and_prints_its_table(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "runs"
    command = (*ARMS, "--steps", "4", "--seed", "0", "--seed", "1")
    calls: list[tuple[str, bool]] = []
    train = ablation_run.train

    def killed(net, roots, recipe, settings, progress):
        calls.append((settings.output.parent.name, settings.resume))
        settings = replace(settings, save_minutes=0, log_steps=1)

        def stop(done: int, text: str) -> None:
            progress(done, text)
            if len(calls) == 2 and done == 3:
                raise KeyboardInterrupt

        return train(net, roots, recipe, settings, progress=stop)

    monkeypatch.setattr(ablation_run, "train", killed)
    assert ablate(folder, output, *command) == 130
    assert calls == [("as_it_is", False), ("no_landmarks", False)]
    assert (output / "as_it_is" / "seed-0" / "result.json").is_file()
    assert not (output / "no_landmarks" / "seed-0" / "result.json").exists()

    capsys.readouterr()
    assert ablate(folder, output, *command) == 0
    assert calls[2:] == [("no_landmarks", True), ("as_it_is", False), ("no_landmarks", False)]
    names = [f"{arm}/seed-{seed}" for arm in ("as_it_is", "no_landmarks") for seed in (0, 1)]
    assert trained(output) == {name: [1, 2, 3, 4] for name in names}
    text = capsys.readouterr().out
    assert text.strip() == (output / "ablation.md").read_text().strip()
    assert "| arm | landmark_weight | AP | mAP@0.5:0.95 | seeds |" in text
    assert "| no landmarks | 0 | 0." in text and " ± " in text
    record = json.loads((output / "ablation.json").read_text())
    assert record["steps"] == 4
    first, second = record["arms"]
    assert [run["seed"] for run in first["seeds"]] == [0, 1]
    assert first["difference"]["hard"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    assert first["preset"] == f"{PRESET}:width=16"
    low, high = second["difference"]["hard"]["interval"]
    assert low <= second["difference"]["hard"]["mean"] <= high

    calls.clear()
    assert ablate(folder, output, *command) == 0
    assert calls == []
    assert ablate(folder, output, *ARMS, "--steps", "8") == 1
    assert "the same phases" in capsys.readouterr().err


def test_a_run_that_another_process_is_at_is_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    busy = output / "no_landmarks" / "seed-0"
    busy.mkdir(parents=True)
    with (busy / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ablate(folder, output, *ARMS, "--steps", "2") == 0
    out, err = capsys.readouterr()
    assert "no landmarks, seed 0 (2/2): another process is at it" in err
    assert "| no landmarks | 0 | – | – | 0 |" in out


def test_an_arm_that_diverges_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ("--arm", "wild: learning_rate=1e30, clip=1e30", "--arm", "as it is")
    assert ablate(folder, tmp_path / "runs", *arms, "--steps", "4") == 1
    out, err = capsys.readouterr()
    assert "error: wild, seed 0 (1/2): expected a finite" in err
    assert "| wild | " in out
    assert (tmp_path / "runs" / "as_it_is" / "seed-0" / "result.json").is_file()


def test_minutes_become_steps_once(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    assert ablate(folder, output, "--arm", "a", "--minutes", "0.01") == 0
    budget = json.loads((output / "budget.json").read_text())
    steps = json.loads((output / "a" / "seed-0" / "result.json").read_text())["steps"]
    assert budget == {"minutes": 0.01, "arm": "a", "steps": steps}
    assert steps >= 1
    assert ablate(folder, output, "--arm", "a", "--minutes", "0.01") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arm", "a", "--only", "b"], "--table with --only"),
        (["--table", "retinaface-3", "--only", "Lpts"], "expected rows of"),
        (["--arm", "a", "--arm", "a"], "arms of different names"),
        (["--arm", "a", "--evaluate", "nowhere"], "expected a folder"),
    ],
)
def test_clear_errors_before_the_first_step(
    options: Sequence[str], expected: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert ablate(folder, tmp_path / "runs", *options) == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/*"))
