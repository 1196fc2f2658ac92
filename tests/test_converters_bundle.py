"""Bundle folders appear complete or not at all, and the commands that make them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeface.converters.bundle as converters_bundle
from edgeface.bundle import MANIFEST, load_bundle
from edgeface.cli.export import parse_size, wanted_files
from edgeface.cli.main import main
from edgeface.converters.bundle import (
    TARGETS,
    Conversion,
    build_bundle,
    convert,
    write_bundle,
)
from edgeface.converters.parity import Size
from edgeface.converters.report import (
    BackendParity,
    FaceParity,
    ParityReport,
    TensorParity,
)
from edgeface.errors import ConversionError, InvalidOptionError
from edgeface.nets.weights import load_bundle_net, load_weights, read_bundle_weights

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
build = pytest.importorskip("edgeface.nets").build

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

PRESET = "retinaface_mobilenet025"
# The shortest graph that counts as one: its version alone.
ONNX = b"\x08\x0a"
METADATA = {"licence": "none", "ap": {"easy": 0.5}}


def parity(snr_db: float) -> ParityReport:
    faces = FaceParity(expected=3, matched=3, extra=0, iou=1.0, landmark_px=0.0)
    tensors = (TensorParity("logit_8", 0.1, snr_db),)
    fake = BackendParity("fake 1.0", "fp32", tensors, faces)
    return ParityReport((fake,), {"other": "not installed"})


@pytest.fixture(scope="module")
def net() -> DetectorNet:
    torch.manual_seed(0)
    return build(PRESET).eval()


@pytest.fixture
def fake_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters that are done at once, and a parity check that passes."""

    def to_tflite(net: DetectorNet, sizes: tuple[Size, ...]) -> bytes:
        return f"tflite {list(sizes)}".encode()

    monkeypatch.setattr(converters_bundle, "to_onnx", lambda net, *size: ONNX)
    monkeypatch.setattr(converters_bundle, "fix_batch", lambda content, batch: content)
    monkeypatch.setattr(converters_bundle, "to_tflite", to_tflite)
    monkeypatch.setattr(converters_bundle, "check_parity", lambda *_, **__: parity(120.0))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("fake_converters")
def test_bundle_holds_what_went_in(net: DetectorNet, tmp_path: Path) -> None:
    output = tmp_path / "models" / "mine"
    bundle = build_bundle("mine", PRESET, net.state_dict(), output, METADATA, model_card="# Mine\n")
    assert bundle == load_bundle(output)
    assert (bundle.name, bundle.preset, bundle.metadata) == ("mine", PRESET, METADATA)
    assert bundle.anchors == net.anchors
    assert bundle.pad_value == (104, 117, 123)
    opened = {one.format: bundle.open(one) for one in bundle.artifacts}
    assert opened["onnx"] == ONNX
    assert opened["tflite"] == b"tflite []"
    assert {one.precision for one in bundle.artifacts} == {"fp32"}
    assert (output / "MODEL_CARD.md").read_text() == "# Mine\n"
    stored = read_bundle_weights(bundle)
    for key, value in load_weights(PRESET, stored).state_dict().items():
        assert torch.equal(value, net.state_dict()[key])
    assert [path.name for path in output.parent.iterdir()] == ["mine"]


@pytest.mark.usefixtures("fake_converters")
def test_static_sizes_and_batch_are_in_the_manifest(net: DetectorNet, tmp_path: Path) -> None:
    conversion = convert(net, input_sizes=[(64, 32)], batch=1)
    bundle = write_bundle("static", net, conversion, tmp_path / "static", {})
    limits = {one.format: (one.input_sizes, one.batch) for one in bundle.artifacts}
    static = (((64, 32),), 1)
    assert limits == {"safetensors": ((), None), "onnx": static, "tflite": static}


@pytest.mark.usefixtures("fake_converters")
def test_every_target_and_precision_has_the_file_that_serves_it(
    net: DetectorNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("store_half", "compute_half", "store_half_tflite"):
        monkeypatch.setattr(converters_bundle, name, lambda content: content)
    asked = []

    def quantise(target: str, source: bytes) -> bytes:
        asked.append((target, source))
        return ONNX

    conversion = convert(net, wanted_files("all", "all"), quantise=quantise)
    bundle = write_bundle("all", net, conversion, tmp_path / "all", {})
    assert asked == [(one, b"tflite []" if one == "tflite" else ONNX) for one in TARGETS]
    assert {one.file for one in bundle.artifacts} == {
        "weights.fp32.safetensors",
        "model.fp32.onnx",
        "model.fp32.tflite",
        "model.fp16.onnx",
        "model.fp16.tflite",
        "model.fp16.tensorrt.onnx",
        "model.int8.onnx",
        "model.int8.tflite",
        "model.int8.openvino.onnx",
        "model.int8.tensorrt.onnx",
    }
    assert {one.precision for one in bundle.artifacts if one.format == "tensorrt"} == {
        "fp16",
        "int8",
    }


def test_targets_and_precisions_pair_up() -> None:
    assert wanted_files("all", "fp32") == [(target, "fp32") for target in TARGETS]
    assert wanted_files("onnx,tflite", "fp32,int8,tensorrt:fp16,tflite:int8") == [
        ("onnx", "fp32"),
        ("tflite", "fp32"),
        ("onnx", "int8"),
        ("tflite", "int8"),
        ("tensorrt", "fp16"),
    ]


@pytest.mark.usefixtures("fake_converters")
def test_int8_needs_a_quantiser(net: DetectorNet) -> None:
    with pytest.raises(InvalidOptionError, match="quantiser"):
        convert(net, [("onnx", "int8")])


@pytest.mark.usefixtures("fake_converters")
def test_weights_in_channels_last_are_stored(tmp_path: Path) -> None:
    net = build(PRESET).to(memory_format=torch.channels_last)
    bundle = build_bundle("mine", PRESET, net.state_dict(), tmp_path / "mine", {})
    assert read_bundle_weights(bundle).keys() == net.state_dict().keys()


@pytest.mark.usefixtures("fake_converters")
def test_artifacts_that_differ_from_torch_are_refused(
    net: DetectorNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters_bundle, "check_parity", lambda *_, **__: parity(30.0))
    with pytest.raises(ConversionError, match=r"fake 1\.0 \| fp32 \| 30\.0 .* DIFFERS"):
        build_bundle("mine", PRESET, net.state_dict(), tmp_path / "mine", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fails_at", ["converters.bundle.write_manifest", "nets.weights.to_safetensors", "_move"]
)
@pytest.mark.usefixtures("fake_converters")
def test_the_old_bundle_survives_a_failure(
    fails_at: str, net: DetectorNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mine"
    build_bundle("old", PRESET, net.state_dict(), output, METADATA, model_card="old")
    before = files(output)

    def fail(*args: Any) -> None:
        raise OSError("no space left")

    if fails_at == "_move":
        monkeypatch.setattr("edgeface.converters.bundle._swap", lambda one, other: False)
        real = Path.replace

        def replace(self: Path, target: Path) -> Path:
            return fail() if self.name == "new" else real(self, target)  # type: ignore[func-returns-value]

        monkeypatch.setattr(Path, "replace", replace)
    else:
        monkeypatch.setattr(f"edgeface.{fails_at}", fail)
    with pytest.raises(OSError, match="no space left"):
        build_bundle("new", PRESET, net.state_dict(), output, {}, force=True)
    assert files(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.usefixtures("fake_converters")
def test_replacing_needs_force_and_a_bundle(net: DetectorNet, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    state = net.state_dict()
    build_bundle("old", PRESET, state, output, {}, model_card="old")
    with pytest.raises(InvalidOptionError, match="--force"):
        build_bundle("new", PRESET, state, output, {})
    assert load_bundle(output).name == "old"
    assert build_bundle("new", PRESET, state, output, {}, force=True).name == "new"
    assert not (output / "MODEL_CARD.md").exists()

    (output / MANIFEST).unlink()
    with pytest.raises(InvalidOptionError, match="neither"):
        build_bundle("new", PRESET, state, output, {}, force=True)
    assert (output / "model.fp32.onnx").exists()

    for path in output.iterdir():
        path.unlink()
    assert build_bundle("new", PRESET, state, output, {}).name == "new"


def test_convert_refuses_an_unknown_target(net: DetectorNet) -> None:
    with pytest.raises(InvalidOptionError, match="tflite, tensorrt, got 'ncnn'"):
        convert(net, [("ncnn", "fp32")])


def test_a_report_without_any_backend_does_not_pass() -> None:
    assert parity(120).passed
    assert not ParityReport((), {"onnxruntime": "not installed"}).passed


@pytest.mark.usefixtures("fake_converters")
def test_export_command_from_checkpoint_and_from_bundle(
    net: DetectorNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "weights.safetensors"
    safetensors.save_file(net.state_dict(), checkpoint)
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        main(["export", "--checkpoint", str(checkpoint), "--preset", PRESET, "-o", str(first)]) == 0
    )
    out = capsys.readouterr().out
    assert "| fake 1.0 | fp32 | 120.0 |" in out
    bundle = load_bundle(first)
    assert bundle.name == "first"
    assert bundle.metadata["source"] == "weights.safetensors"
    for artifact in bundle.artifacts:
        assert artifact.sha256 in out

    (first / "MODEL_CARD.md").write_text("# Card\n")
    command = ["export", "--model", str(first), "--name", "other", "--target", "tflite"]
    command += ["--input-size", "320x256", "--input-size", "64X64", "-o", str(second)]
    assert main(command) == 0
    other = load_bundle(second)
    assert other.name == "other"
    assert other.metadata == bundle.metadata
    assert (second / "MODEL_CARD.md").read_text() == "# Card\n"
    assert other.find("onnx", "fp32") is None
    tflite = other.find("tflite", "fp32")
    assert tflite is not None
    assert tflite.input_sizes == ((320, 256), (64, 64))
    assert other.open(tflite) == b"tflite [(320, 256), (64, 64)]"


@pytest.mark.usefixtures("fake_converters")
def test_export_command_stores_weights_in_half(net: DetectorNet, tmp_path: Path) -> None:
    state = dict(net.state_dict())
    checkpoint, folder = tmp_path / "weights.safetensors", tmp_path / "half"
    safetensors.save_file(state, checkpoint)
    command = ["export", "--preset", PRESET, "--store-weights", "fp16"]
    assert main([*command, "--checkpoint", str(checkpoint), "-o", str(folder)]) == 0
    bundle = load_bundle(folder)
    artifact = bundle.find("safetensors", "fp16")
    assert artifact is not None
    assert artifact.file == "weights.fp16.safetensors"
    assert len(bundle.open(artifact)) < 0.6 * checkpoint.stat().st_size
    read = load_bundle_net(bundle).state_dict()
    for name, value in state.items():
        rounded = value.half().float() if value.is_floating_point() else value
        assert torch.equal(read[name], rounded), name

    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], 1e5)
    safetensors.save_file(state, checkpoint)
    refused = tmp_path / "refused"
    assert main([*command, "--checkpoint", str(checkpoint), "-o", str(refused)]) != 0
    assert not refused.exists()


@pytest.mark.usefixtures("fake_converters")
def test_export_command_takes_the_mean_of_several_checkpoints(
    net: DetectorNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = net.state_dict()
    command = ["export", "--preset", PRESET, "-o", str(tmp_path / "mean")]
    for factor in (1, 2, 6):
        file = tmp_path / f"{factor}.safetensors"
        changed = {k: v * factor if v.is_floating_point() else v for k, v in state.items()}
        safetensors.save_file(changed, file)
        command += ["--checkpoint", str(file)]
    assert main(command) == 0
    bundle = load_bundle(tmp_path / "mean")
    assert bundle.metadata["source"] == "1.safetensors, 2.safetensors, 6.safetensors"
    for key, mean in read_bundle_weights(bundle).items():
        expected = state[key] * 3 if state[key].is_floating_point() else state[key]
        torch.testing.assert_close(mean, expected)

    safetensors.save_file({"conv.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    assert main([*command, "--checkpoint", str(tmp_path / "other.safetensors"), "--force"]) == 1
    assert "expected weights of the same net" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "expected pictures to calibrate int8 with, got none"),
        (["--precision", "fp32", "--data", "photos"], "for int8 alone, got --precision fp32"),
        (["--precision", "int4"], "got 'int4'"),
        (["--target", "ncnn"], "got 'ncnn'"),
        (["--input-size", "64x64", "--input-size", "96x96"], "expected one input size for onnx"),
        (["--target", "all", "--batch", "2"], "expected a batch of 1 for tflite, got 2"),
        (["--input-size", "64"], "WIDTHxHEIGHT in pixels, got '64'"),
        (["--preset", "retinaface_mobilenet"], "retinaface_mobilenet025"),
        ([], "expected --preset with --checkpoint, got none"),
    ],
)
def test_export_command_refuses(
    options: list[str],
    message: str,
    net: DetectorNet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = tmp_path / "weights.safetensors"
    safetensors.save_file(net.state_dict(), checkpoint)
    if options and "--preset" not in options:
        options = [*options, "--preset", PRESET]
    command = ["export", "--checkpoint", str(checkpoint), *options, "-o", str(tmp_path / "out")]
    assert main(command) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_export_command_needs_the_weights_of_a_model(
    net: DetectorNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle("bare", net, Conversion({}, (), parity(120)), tmp_path / "bare", {})
    manifest = tmp_path / "bare" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"safetensors"', '"onnx"'))
    assert main(["export", "--model", str(tmp_path / "bare"), "-o", str(tmp_path / "out")]) == 1
    assert "export from the checkpoint instead" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["torch", "safetensors"])
@pytest.mark.parametrize(
    "command",
    [
        ["export", "--model", PRESET, "-o", "out"],
        ["import", "weights.pth", "--preset", PRESET, "-o", "out"],
        ["train", "--data", "faces", "--output", "out"],
    ],
    ids=lambda command: command[0],
)
def test_without_torch_a_command_names_the_extra(
    command: list[str], package: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; "
    code += f"from edgeface.cli.main import main; sys.exit(main({command!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert f"'{package}'" in result.stderr
    assert "pip install 'edgeface[convert]'" in result.stderr


@pytest.mark.parametrize(
    "text", ["640", "640x", "x480", "0x32", "64x-32", "64x32x3", "640×480", ""]
)
def test_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidOptionError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_sizes_are_width_by_height() -> None:
    assert parse_size("640x480") == (640, 480)


@pytest.mark.usefixtures("fake_converters")
def test_export_stores_the_card_and_metadata_it_is_given(
    net: DetectorNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    write_bundle("bundle", net, Conversion({}, (), parity(120)), bundle, METADATA)
    (tmp_path / "card.md").write_text("# Card\n")
    (tmp_path / "facts.json").write_text('{"licence": "Apache-2.0"}')
    out = tmp_path / "out"
    command = ["export", "--model", str(bundle), "--target", "onnx", "-o", str(out)]
    assert main([*command, "--card", str(tmp_path / "gone.md")]) == 1
    (tmp_path / "list.json").write_text("[1]")
    assert main([*command, "--metadata", str(tmp_path / "list.json")]) == 1
    assert "JSON object" in capsys.readouterr().err
    assert not out.exists()
    facts = ["--metadata", str(tmp_path / "facts.json"), "--card", str(tmp_path / "card.md")]
    assert main([*command, *facts]) == 0
    assert load_bundle(out).metadata["licence"] == "Apache-2.0"
    assert (out / "MODEL_CARD.md").read_text() == "# Card\n"
