"""Model bundles: a folder with a manifest and one artifact per format and precision.

The manifest carries what decoding needs, so every backend shares one postprocess. An artifact's
sha256 is checked before native code sees a byte of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.errors import (
    InvalidOptionError,
    ModelIntegrityError,
    ModelNotFoundError,
    OutputError,
)
from edgeface.onnxfile import has_external_data

MANIFEST = "manifest.json"
ONNX = ".onnx"
SCHEMA = 1
SHIPPED = Path(__file__).parent / "models"
PRECISIONS = ("fp32", "fp16", "int8")
WEIGHT_PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Artifact:
    """One file of a bundle.

    Attributes:
        format: what it is made for: "onnx" (ONNX Runtime, and any reader of ONNX), "openvino" and
            "tensorrt" (ONNX graphs too, quantised or typed as that runtime wants it), "tflite", or
            "safetensors" (training weights). Two artifacts may name one file.
        precision: "fp32", "fp16" or "int8".
        file: name relative to the bundle's folder.
        sha256: hex digest of the file.
        input_sizes: (width, height) pairs that a static graph accepts; empty: any size.
        batch: frames that a static graph takes at once; None: any number.
    """

    format: str
    precision: str
    file: str
    sha256: str
    input_sizes: tuple[tuple[int, int], ...] = ()
    batch: int | None = None


@dataclass(frozen=True)
class Bundle:
    """A model as it ships.

    Attributes:
        name: the name that ``Detector(model=...)`` takes.
        preset: the preset of ``edgeface.nets`` that the weights belong to.
        path: folder of the manifest.
        anchors: geometry that postprocessing decodes with.
        pad_value: BGR value outside the picture in a letterboxed frame: the training mean.
        artifacts: the files.
        metadata: licence, training data, recipe and accuracy, for people and reports.
    """

    name: str
    preset: str
    path: Path
    anchors: AnchorSpec
    artifacts: tuple[Artifact, ...]
    pad_value: tuple[int, int, int] = (104, 117, 123)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def find(self, format: str, precision: str) -> Artifact | None:
        """Return the artifact of that format and precision, or None."""
        for artifact in self.artifacts:
            if (artifact.format, artifact.precision) == (format, precision):
                return artifact
        return None

    def best(self, formats: Sequence[str], precisions: Sequence[str]) -> Artifact | None:
        """Return the artifact of the first precision, and then of the first format, or None."""
        wanted = ((format, precision) for precision in precisions for format in formats)
        found = (self.find(*one) for one in wanted)
        return next((artifact for artifact in found if artifact is not None), None)

    @property
    def weights(self) -> Artifact | None:
        """The training weights, or None."""
        return self.best(["safetensors"], WEIGHT_PRECISIONS)

    def open(self, artifact: Artifact) -> bytes:
        """Read an artifact after checking its hash.

        Raises:
            ModelIntegrityError: the file is missing, leaves the folder, has another sha256, or is
                an ONNX graph that keeps weights in other files.
        """
        path = (self.path / artifact.file).resolve()
        if self.path.resolve() not in path.parents:
            raise ModelIntegrityError(
                f"expected '{artifact.file}' inside the bundle {self.path}, got a path outside it; "
                "reinstall the model"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelIntegrityError(
                f"expected the artifact {path}, but it cannot be read ({error}); "
                "reinstall the model"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != artifact.sha256:
            raise ModelIntegrityError(
                f"expected sha256 {artifact.sha256} for {path}, got {digest}; "
                "the file is damaged or was replaced: reinstall the model"
            )
        if path.suffix == ONNX:
            _check_onnx(data, path)
        return data


def _check_onnx(data: bytes, path: Path) -> None:
    try:
        external = has_external_data(data)
    except ValueError as error:
        raise ModelIntegrityError(
            f"expected an ONNX graph in {path}, got: {error}; export the model again"
        ) from error
    if external:
        raise ModelIntegrityError(
            f"expected an ONNX graph with its weights in {path}, got one that keeps them in other "
            "files; export it with external_data=False"
        )


def shipped_models() -> list[str]:
    """Names of the bundles that come with edgeface."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def load_bundle(model: str | Path | Bundle) -> Bundle:
    """Load a bundle by shipped name, or by the path of its folder or manifest.

    One that is loaded is returned as it is.

    Raises:
        ModelNotFoundError: there is no such bundle.
        ModelIntegrityError: the manifest is damaged.
    """
    if isinstance(model, Bundle):
        return model
    folder = (
        SHIPPED / model if isinstance(model, str) and model in shipped_models() else Path(model)
    )
    if folder.name == MANIFEST:
        folder = folder.parent
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelNotFoundError(
            f"expected a shipped model ({', '.join(shipped_models()) or 'none'}) or a folder with "
            f"a {MANIFEST}, got '{model}'; check the name, or make a bundle with 'edgeface export'"
        )
    try:
        return _parse(folder, json.loads(path.read_text("utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ModelIntegrityError(
            f"expected a manifest of schema {SCHEMA} in {path}, got {error!r}; reinstall the model"
        ) from error


def _parse(folder: Path, content: dict[str, Any]) -> Bundle:
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']}")
    levels = tuple(
        AnchorLevel(
            int(level["stride"]),
            tuple(float(size) for size in level["sizes"]),
            tuple(float(ratio) for ratio in level["aspect_ratios"]),
        )
        for level in content["anchors"]["levels"]
    )
    centre, size = content["anchors"]["variances"]
    blue, green, red = content["pad_value"]
    artifacts = tuple(
        Artifact(
            format=str(entry["format"]),
            precision=str(entry["precision"]),
            file=str(entry["file"]),
            sha256=str(entry["sha256"]),
            input_sizes=tuple((int(w), int(h)) for w, h in entry["input_sizes"]),
            batch=None if entry.get("batch") is None else int(entry["batch"]),
        )
        for entry in content["artifacts"]
    )
    return Bundle(
        name=str(content["name"]),
        preset=str(content["preset"]),
        path=folder,
        anchors=AnchorSpec(levels, (float(centre), float(size))),
        artifacts=artifacts,
        pad_value=(int(blue), int(green), int(red)),
        metadata=dict(content["metadata"]),
    )


def write_manifest(bundle: Bundle) -> None:
    """Write the bundle's manifest beside its artifacts, by atomic rename."""
    content = {
        "schema": SCHEMA,
        "name": bundle.name,
        "preset": bundle.preset,
        "pad_value": bundle.pad_value,
        "anchors": asdict(bundle.anchors),
        "artifacts": [asdict(artifact) for artifact in bundle.artifacts],
        "metadata": dict(bundle.metadata),
    }
    write_atomic(bundle.path / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        OutputError: the disk is full, or the folder cannot be written; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{id(data):x}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"expected to write {path}, got: {error}; free some space or choose another folder"
        ) from error


def check_precision(precision: str) -> str:
    """Return the precision, or raise InvalidOptionError where it is unknown."""
    if precision not in ("auto", *PRECISIONS):
        raise InvalidOptionError(
            f"expected precision 'auto', {', '.join(map(repr, PRECISIONS))}, got {precision!r}"
        )
    return precision
