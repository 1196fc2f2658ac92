"""Checkpoint files to state dicts, and state dicts to nets, with every mismatch named."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save
from torch import nn

from edgeface.bundle import Bundle
from edgeface.errors import CheckpointError, ModelNotFoundError
from edgeface.nets.detector import DetectorNet
from edgeface.nets.presets import build

StateDict = Mapping[str, torch.Tensor]
BATCH_COUNTER = "num_batches_tracked"
WRAPPERS = ("average", "state_dict")
SHOWN = 8


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a ``.safetensors`` file or a torch checkpoint.

    Torch files are read with ``weights_only=True``, so no code in them runs. Wrappers are taken
    off: ``state_dict``, the averaged weights of edgeface's own training state, and ``module.``
    prefixes (``DataParallel``).

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: the file holds no state dict, or is a pickle with code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(
            f"expected a checkpoint file, got '{path}', which does not exist; check the path"
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"expected a state dict in '{path}' (.safetensors, or .pth with tensors alone), got a "
            f"file that cannot be read as one ({_first_line(error)}); save it again with "
            "torch.save(model.state_dict(), path)"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise CheckpointError(
            f"expected a state dict (names to tensors) in '{path}', got {_summary(content)}; "
            "save it again with torch.save(model.state_dict(), path)"
        )
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def read_mean_weights(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Read the mean of several runs' weights (a uniform soup, Wortsman et al. 2022).

    Args:
        paths: one or more files as ``read_state_dict`` takes them, of runs that branched off the
            same weights; others have no useful mean.

    Raises:
        ModelNotFoundError: a file does not exist.
        CheckpointError: a file holds no state dict, or they are not of the same net.
    """
    first, *others = map(read_state_dict, paths)
    for path, other in zip(paths[1:], others, strict=True):
        if {key: value.shape for key, value in other.items()} != {
            key: value.shape for key, value in first.items()
        }:
            raise CheckpointError(
                f"expected weights of the same net in '{paths[0]}' and '{path}', got other names "
                "or shapes; take checkpoints of one preset"
            )
    return {
        key: torch.stack([value, *(other[key] for other in others)]).mean(0)
        if others and value.is_floating_point()
        else value
        for key, value in first.items()
    }


def read_bundle_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Read the float32 or float16 weights that a bundle holds, after checking their hash.

    Raises:
        ModelNotFoundError: the bundle holds no weights.
        ModelIntegrityError: they are damaged.
    """
    artifact = bundle.weights
    if artifact is None:
        raise ModelNotFoundError(
            f"expected a bundle with its weights (safetensors), got '{bundle.path}', which has "
            "none; export from the checkpoint instead"
        )
    state: dict[str, torch.Tensor] = load(bundle.open(artifact))
    return state


def load_bundle_net(bundle: Bundle) -> DetectorNet:
    """Build a bundle's net with the weights that the bundle holds, in evaluation mode.

    Raises:
        ModelNotFoundError: the bundle holds no weights.
        ModelIntegrityError: they are damaged.
    """
    return load_weights(bundle.preset, read_bundle_weights(bundle))


def to_safetensors(net: DetectorNet, precision: str = "fp32") -> bytes:
    """A net's weights as a ``.safetensors`` file that names its preset.

    Args:
        net: any net.
        precision: "fp32", or "fp16" for half the size; see ``round_to_half``.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    if precision == "fp16":
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    content: bytes = save(state, {"preset": net.preset})
    return content


def round_to_half(net: DetectorNet) -> None:
    """Round a net's weights to what float16 holds, in place.

    Raises:
        CheckpointError: a weight or batch statistic is beyond float16's range.
    """
    largest = torch.finfo(torch.float16).max
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        if value.abs().max() > largest:
            raise CheckpointError(
                f"expected weights within float16's {largest:g}, got {value.abs().max():g} in "
                f"'{name}'; store them in float32"
            )
        value.copy_(value.half())


def describe_source(*paths: Path) -> dict[str, str]:
    """Return metadata that names checkpoints: their file names and sha256, with commas."""
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return {
        "source": ", ".join(path.name for path in paths),
        "source_sha256": ", ".join(hashes),
    }


def load_weights(preset: str, state: StateDict) -> DetectorNet:
    """Build a preset and load a state dict with its own key names into it.

    Batch norm's step counters may be absent; every other key must match.

    Args:
        preset: name from ``edgeface.nets.presets``.
        state: float tensors by key.

    Returns:
        The net, in evaluation mode.

    Raises:
        InvalidOptionError: unknown preset.
        CheckpointError: missing, unexpected, wrongly shaped or non-finite weights; it lists them.
    """
    net = build(preset)
    load_into(net, state, f"preset '{preset}'")
    return net.eval()


def load_into(module: nn.Module, state: StateDict, name: str) -> None:
    """Load a state dict into a net or a part of it.

    Batch norm's step counters may be absent; every other key must match.

    Args:
        module: what gets the weights.
        state: float tensors by key.
        name: what the weights are expected to be of, for the message.

    Raises:
        CheckpointError: missing, unexpected, wrongly shaped or non-finite weights; it lists them.
    """
    wanted = {key: value for key, value in module.state_dict().items() if BATCH_COUNTER not in key}
    given = {key: value for key, value in state.items() if BATCH_COUNTER not in key}
    problems = []
    if missing := wanted.keys() - given.keys():
        problems.append(f"missing {_listed(missing)}")
    if unexpected := given.keys() - wanted.keys():
        problems.append(f"unexpected {_listed(unexpected)}")
    common = wanted.keys() & given.keys()
    if shapes := {
        f"{key} {_shape(given[key])} instead of {_shape(wanted[key])}"
        for key in common
        if given[key].shape != wanted[key].shape
    }:
        problems.append(f"wrong shape: {_listed(shapes)}")
    if broken := {key for key in common if not given[key].isfinite().all()}:
        problems.append(f"not finite: {_listed(broken)}")
    if problems:
        raise CheckpointError(
            f"expected the weights of {name}, got a state dict with "
            f"{'; '.join(problems)}; choose the preset that the checkpoint was trained as"
        )
    module.load_state_dict(given, strict=False)


def _listed(keys: set[str]) -> str:
    shown = ", ".join(sorted(keys)[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _summary(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {_listed({str(key) for key in content})}"
    return f"an object of type {type(content).__name__}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
