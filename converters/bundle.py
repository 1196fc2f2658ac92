"""Weights to a bundle folder: artifacts, hashes, manifest and model card, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgeface.bundle import MANIFEST, Artifact, Bundle, load_bundle, write_manifest
from edgeface.converters.onnx import to_onnx
from edgeface.converters.parity import Size, check_parity, pad_value
from edgeface.converters.report import ParityReport
from edgeface.converters.tflite import to_tflite
from edgeface.errors import ConversionError, InvalidOptionError
from edgeface.nets.weights import StateDict, load_weights

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

TARGETS = ("onnx", "tflite")
PRECISION = "fp32"
WEIGHTS = f"weights.{PRECISION}.safetensors"
MODEL_CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Conversion:
    """A net in every target's format.

    Attributes:
        contents: the files' contents by format.
        input_sizes: (width, height) pairs that the TFLite file is static for; empty: any size.
        report: how equal they are to torch.
    """

    contents: dict[str, bytes]
    input_sizes: tuple[Size, ...]
    report: ParityReport


def convert(
    net: DetectorNet, targets: Iterable[str] = TARGETS, input_sizes: Sequence[Size] = ()
) -> Conversion:
    """Convert a net to every target and check the results against torch.

    Args:
        net: a trained net; it is not changed.
        targets: formats, of ``TARGETS``.
        input_sizes: (width, height) pairs of a static TFLite file; empty: any size.

    Raises:
        MissingDependencyError: a package of the extra ``convert`` is not installed.
        InvalidOptionError: unknown target, or a size off the stride.
        ConversionError: a converter fails, or an artifact differs from torch.
    """
    contents = {}
    for target in targets:
        if target == "onnx":
            contents[target] = to_onnx(net)
        elif target == "tflite":
            contents[target] = to_tflite(net, input_sizes)
        else:
            raise InvalidOptionError(f"expected a target of {', '.join(TARGETS)}, got '{target}'")
    report = check_parity(net, contents, input_sizes={"tflite": input_sizes})
    if not report.passed:
        raise ConversionError(
            "expected the exported graphs to compute what torch computes, got\n"
            f"{report.to_markdown()}\n"
            "train further if the weights are near overflow, else report the preset's name"
        )
    return Conversion(contents, tuple(input_sizes), report)


def check_output(output: Path, force: bool) -> None:
    """Raise InvalidOptionError where a bundle cannot be written without losing something."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise InvalidOptionError(
            f"expected a new folder or a bundle to replace, got '{output}', which is neither; "
            "choose another folder"
        )
    if not force:
        raise InvalidOptionError(
            f"expected a new folder, got '{output}', which holds a bundle; "
            "choose another folder, or allow replacing it (--force)"
        )


def write_bundle(
    name: str,
    net: DetectorNet,
    conversion: Conversion,
    output: str | Path,
    metadata: Mapping[str, Any],
    *,
    model_card: str | None = None,
    force: bool = False,
) -> Bundle:
    """Write a bundle folder; it appears complete or not at all.

    Args:
        name: name of the model.
        net: the net whose weights are stored beside the converted files.
        conversion: the converted files.
        output: the folder.
        metadata: licence, training data, recipe and accuracy, for the manifest; JSON types.
        model_card: text of ``MODEL_CARD.md``, if any.
        force: replace a bundle that is already there; it survives where this one fails.

    Raises:
        MissingDependencyError: safetensors is not installed.
        InvalidOptionError: something else is in the folder's place.
    """
    output = Path(output).absolute()
    check_output(output, force)
    files = {("safetensors", WEIGHTS): _weights(net)}
    for target, content in conversion.contents.items():
        files[target, f"model.{PRECISION}.{target}"] = content
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        artifacts = []
        for (target, file), content in files.items():
            (folder / file).write_bytes(content)
            sizes = conversion.input_sizes if target == "tflite" else ()
            digest = hashlib.sha256(content).hexdigest()
            artifacts.append(Artifact(target, PRECISION, file, digest, sizes))
        if model_card is not None:
            (folder / MODEL_CARD).write_text(model_card, "utf-8")
        write_manifest(
            Bundle(
                name=name,
                preset=net.preset,
                path=folder,
                anchors=net.anchors,
                artifacts=tuple(artifacts),
                pad_value=pad_value(net),
                metadata=metadata,
            )
        )
        _move(folder, output, Path(scratch) / "old")
    return load_bundle(output)


def build_bundle(
    name: str,
    preset: str,
    state: StateDict,
    output: str | Path,
    metadata: Mapping[str, Any],
    *,
    model_card: str | None = None,
    force: bool = False,
) -> Bundle:
    """Turn a state dict into a bundle for every target: ``convert``, then ``write_bundle``.

    Args:
        name: name of the model.
        preset: preset of ``edgeface.nets`` that the weights belong to.
        state: state dict with the preset's own keys.
        output: the folder.
        metadata: for the manifest; JSON types.
        model_card: text of ``MODEL_CARD.md``, if any.
        force: replace a bundle that is already there.

    Raises:
        MissingDependencyError: a package of the extra ``convert`` is not installed.
        InvalidOptionError: unknown preset, or something else is in the folder's place.
        CheckpointError: the weights do not fit the preset.
        ConversionError: a converter fails, or an artifact differs from torch.
    """
    check_output(Path(output), force)
    net = load_weights(preset, state)
    return write_bundle(
        name, net, convert(net), output, metadata, model_card=model_card, force=force
    )


def _weights(net: DetectorNet) -> bytes:
    from safetensors.torch import save

    content: bytes = save(
        {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()},
        {"preset": net.preset},
    )
    return content


def _move(folder: Path, output: Path, aside: Path) -> None:
    if output.exists():
        output.replace(aside)
    try:
        folder.replace(output)
    except OSError:
        if aside.exists():
            aside.replace(output)
        raise
