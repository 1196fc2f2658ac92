"""Damaged and hostile models: a typed error before native code sees a byte."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeface import Detector
from edgeface.bundle import SHIPPED, Artifact, Bundle, load_bundle, write_manifest
from edgeface.errors import EdgeFaceError, ModelIntegrityError
from edgeface.onnxfile import has_external_data

MODEL = "retinaface_mobilenet025"
FLIPS, CUTS = 1000, 32
ARTIFACTS = sorted({one.format: one.file for one in load_bundle(MODEL).artifacts}.values())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(shutil.copytree(SHIPPED / MODEL, tmp_path / "model"))


def named(bundle: Bundle, file: str) -> Artifact:
    return next(artifact for artifact in bundle.artifacts if artifact.file == file)


@pytest.mark.parametrize("file", ARTIFACTS)
def test_every_cut_and_every_flipped_byte_is_noticed(bundle: Bundle, file: str) -> None:
    path, artifact = bundle.path / file, named(bundle, file)
    whole = path.read_bytes()
    for offset in np.linspace(0, len(whole) - 1, CUTS).astype(int):
        path.write_bytes(whole[:offset])
        with pytest.raises(ModelIntegrityError):
            bundle.open(artifact)
    path.write_bytes(whole)
    rng = np.random.default_rng(0)
    places = rng.choice(len(whole), FLIPS, replace=False)
    for place, change in zip(places, rng.integers(1, 256, FLIPS), strict=True):
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(bytes([whole[place] ^ int(change)]))
            with pytest.raises(ModelIntegrityError):
                stream.flush()
                bundle.open(artifact)
            stream.seek(place)
            stream.write(whole[place : place + 1])
    assert bundle.open(artifact) == whole


@pytest.mark.parametrize(
    ("backend", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".onnx"), ("tflite", ".tflite")]
)
def test_a_damaged_model_is_a_typed_error_of_the_detector(
    bundle: Bundle, backend: str, suffix: str
) -> None:
    for path in bundle.path.glob(f"*{suffix}"):
        path.write_bytes(path.read_bytes()[:-9] + b"not these")
    with pytest.raises(ModelIntegrityError, match="sha256"):
        Detector(backend, model=bundle.path)


def test_a_damaged_manifest_is_a_typed_error_or_harmless(bundle: Bundle) -> None:
    path = bundle.path / "manifest.json"
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = load_bundle(bundle.path)
            for artifact in loaded.artifacts:
                loaded.open(artifact)
        except EdgeFaceError:
            continue


@pytest.mark.parametrize("file", ["../outside.onnx", "/etc/hostname", "link.onnx", "a/../../x"])
def test_no_artifact_leaves_its_folder(bundle: Bundle, file: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(b"secret")
    (bundle.path / "link.onnx").symlink_to(outside)
    artifact = Artifact("onnx", "fp32", file, hashlib.sha256(b"secret").hexdigest())
    with pytest.raises(ModelIntegrityError, match=r"inside the bundle|cannot be read"):
        bundle.open(artifact)


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_in_other_files_are_refused(
    bundle: Bundle, backend: str, place: str, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor("secret", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    artifact = bundle.find("onnx", "fp32")
    assert artifact
    model = onnx.load_from_string((bundle.path / artifact.file).read_bytes())
    assert not has_external_data(model.SerializeToString())
    constant = onnx.helper.make_node("Constant", [], ["secret"], value=tensor)
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "attribute":
        model.graph.node.append(constant)
    else:
        inner = onnx.helper.make_graph([constant], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner))
    hostile = model.SerializeToString()
    (bundle.path / "hostile.onnx").write_bytes(hostile)
    entry_ = Artifact("onnx", "fp32", "hostile.onnx", hashlib.sha256(hostile).hexdigest())
    write_manifest(replace(bundle, artifacts=(entry_,)))
    with pytest.raises(ModelIntegrityError, match="other files"):
        Detector(backend, model=bundle.path)


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x3a\xff\x01", b"\x3b", b"\x3a\x05ab"])
def test_bytes_that_are_no_onnx_are_refused(data: bytes, bundle: Bundle) -> None:
    (bundle.path / "model.fp32.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(ModelIntegrityError, match="ONNX graph"):
        bundle.open(Artifact("onnx", "fp32", "model.fp32.onnx", digest))


def test_no_pickle_anywhere() -> None:
    root = Path(__file__).parents[2]
    folders = ("edgeface", "runtimes", "converters", "calibration")
    for path in (path for folder in folders for path in (root / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, (path, line)


def test_detecting_opens_no_socket() -> None:
    """edgeface downloads nothing: an audit hook sees every socket that Python opens."""
    picture = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
    code = f"""
import json, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
from edgeface import Detector
for backend in ("auto", "onnxruntime"):
    with Detector(backend) as detector:
        assert len(detector({str(picture)!r})) == 1
print(json.dumps([event for event in seen if event != "socket.gethostname"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(result.stdout.splitlines()[-1]) == []
