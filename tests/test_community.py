"""Checkpoints of PyTorch RetinaFace repositories: renaming, refusals, and the strictest figure."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from edgeface.cli.main import main
from edgeface.converters.community import load_community, rename, rename_key
from edgeface.errors import CheckpointError, InvalidOptionError, ModelNotFoundError
from edgeface.nets.weights import load_weights, read_state_dict

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
build = pytest.importorskip("edgeface.nets").build

PRESET = "retinaface_mobilenet025"
RENAMED = {
    "body.stage1.0.0.weight": "backbone.stage1.0.0.weight",
    "body.stage2.5.4.running_var": "backbone.stage2.5.4.running_var",
    "fpn.output1.0.weight": "neck.lateral.0.0.weight",
    "fpn.output3.1.bias": "neck.lateral.2.1.bias",
    "fpn.merge1.0.weight": "neck.smooth.0.0.weight",
    "fpn.merge2.1.running_mean": "neck.smooth.1.1.running_mean",
    "ssh1.conv3X3.0.weight": "context.0.branch3.0.weight",
    "ssh2.conv5X5_1.1.weight": "context.1.reduce.1.weight",
    "ssh2.conv5X5_2.0.weight": "context.1.branch5.0.weight",
    "ssh3.conv7X7_2.0.weight": "context.2.branch7.0.0.weight",
    "ssh3.conv7x7_3.1.bias": "context.2.branch7.1.1.bias",
    "ClassHead.0.conv1x1.weight": "head.levels.0.classes.weight",
    "BboxHead.1.conv1x1.bias": "head.levels.1.boxes.bias",
    "LandmarkHead.2.conv1x1.weight": "head.levels.2.landmarks.weight",
}


def community_state() -> dict[str, Any]:
    """A state dict with community keys and random weights, made from our own by hand."""
    torch.manual_seed(0)
    state = {}
    for key, value in build(PRESET).state_dict().items():
        part = key.split(".")
        match part[0]:
            case "backbone":
                name = ".".join(("body", *part[1:]))
            case "neck":
                kind = {"lateral": "output", "smooth": "merge"}[part[1]]
                name = ".".join((f"fpn.{kind}{int(part[2]) + 1}", *part[3:]))
            case "context":
                branch, rest = part[2], part[3:]
                if branch == "branch7":
                    branch, rest = f"branch7.{rest[0]}", rest[1:]
                theirs = {
                    "branch3": "conv3X3",
                    "reduce": "conv5X5_1",
                    "branch5": "conv5X5_2",
                    "branch7.0": "conv7X7_2",
                    "branch7.1": "conv7x7_3",
                }[branch]
                name = ".".join((f"ssh{int(part[1]) + 1}", theirs, *rest))
            case _:
                head = {"classes": "Class", "boxes": "Bbox", "landmarks": "Landmark"}[part[3]]
                name = f"{head}Head.{part[2]}.conv1x1.{part[4]}"
        random = torch.rand_like(value) if value.is_floating_point() else value
        state[name] = random
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return community_state()


@pytest.mark.parametrize(("theirs", "ours"), RENAMED.items())
def test_keys_are_renamed(theirs: str, ours: str) -> None:
    assert rename_key(theirs) == ours


@pytest.mark.parametrize("key", ["fpn.output1", "ssh1.conv9X9.0.weight", "fc.weight"])
def test_unknown_keys_stay_as_they_are(key: str) -> None:
    assert rename_key(key) == key


def test_every_weight_of_the_preset_has_a_community_name(state: dict[str, Any]) -> None:
    assert rename(state).keys() == build(PRESET).state_dict().keys()


@pytest.mark.parametrize("form", ["safetensors", "pth", "pth of torch 1.5"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoint_files_load(
    state: dict[str, Any], form: str, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"checkpoint.{form.split()[0]}"
    stored = {prefix + key: value for key, value in state.items()}
    if form == "safetensors":
        safetensors.save_file(stored, path)
    else:
        zipped = form == "pth"
        torch.save(
            {"epoch": 250, "state_dict": stored}, path, _use_new_zipfile_serialization=zipped
        )
    net = load_community(path, PRESET)
    assert not net.training
    torch.testing.assert_close(net.neck.smooth[0][0].weight, state["fpn.merge1.0.weight"])
    torch.testing.assert_close(
        net.head.levels[2].landmarks.bias, state["LandmarkHead.2.conv1x1.bias"]
    )


def test_old_checkpoints_without_step_counters_load(state: dict[str, Any]) -> None:
    kept = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    assert len(kept) < len(state)
    load_weights(PRESET, rename(kept))


def test_a_training_state_gives_its_averaged_weights(tmp_path: Path) -> None:
    average = {"a": torch.ones(2)}
    torch.save({"step": 3, "net": {"a": torch.zeros(2)}, "average": average}, tmp_path / "last.pt")
    assert read_state_dict(tmp_path / "last.pt")["a"].tolist() == [1, 1]


def test_every_mismatch_is_listed(state: dict[str, Any]) -> None:
    broken = dict(state)
    del broken["fpn.merge1.0.weight"]
    broken["fpn.merge9.0.weight"] = torch.zeros(1)
    broken["ClassHead.0.conv1x1.weight"] = torch.zeros(6, 64, 1, 1)
    broken["BboxHead.0.conv1x1.bias"] = torch.full((8,), float("nan"))
    with pytest.raises(CheckpointError) as caught:
        load_weights(PRESET, rename(broken))
    message = str(caught.value)
    assert "missing neck.smooth.0.0.weight" in message
    assert "unexpected neck.smooth.8.0.weight" in message
    assert "head.levels.0.classes.weight 6x64x1x1 instead of 4x64x1x1" in message
    assert "not finite: head.levels.0.boxes.bias" in message


def test_a_checkpoint_of_another_net_is_refused_in_a_line_or_two(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"'retinaface_resnet18'.*and \d+ more") as caught:
        load_weights("retinaface_resnet18", rename(state))
    assert len(str(caught.value)) < 2000


def test_unknown_preset_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match="retinaface_mobilenet025"):
        load_weights("retinaface_mobilenet", state)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("code-ran"),)


def test_a_pickle_with_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Code()}, "torch.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Code()))
    for name in ("torch.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="state dict"):
            read_state_dict(name)
    assert not Path("code-ran").exists()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ([1, 2], "of type list"),
        ({}, "a dict with the keys"),
        ({"epoch": 3, "lr": 0.1}, "epoch, lr"),
    ],
)
def test_other_contents_are_refused(content: Any, got: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=got):
        read_state_dict(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "empty.pth"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"" if name == "empty.pth" else b"\x80nonsense" * 99)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_state_dict(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"none\.pth"):
        read_state_dict(tmp_path / "none.pth")


def test_import_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert main(["import", str(tmp_path / "other.pth"), "-o", str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("edgeface: error: expected the weights of preset")
    assert "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.slow
def test_the_community_model_keeps_its_accuracy(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeface.detector import Detector
    from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, evaluate
    from edgeface.evaluation.wider import load_wider

    pytest.importorskip("litert_torch")
    checkpoint = data / "peers" / "retinaface_mobilenet025_community.safetensors"
    assert main(["import", str(checkpoint), "-o", str(tmp_path / "model")]) == 0
    assert "| equal |" in capsys.readouterr().out
    dataset = load_wider(data / "wider" / "dev")
    expected = {640: (0.908, 0.852, 0.616), None: (0.924, 0.900, 0.772)}
    for input_size, precisions in expected.items():
        with Detector(
            "onnxruntime",
            model=str(tmp_path / "model"),
            precision="fp32",
            input_size=input_size,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            max_faces=MAX_FACES,
        ) as detector:
            report = evaluate(detector, dataset)
        assert (report.easy, report.medium, report.hard) == pytest.approx(precisions, abs=0.003)
