"""Checkpoints: everything that exact resumption needs, written by atomic rename."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeface.bundle import write_atomic
from edgeface.errors import TrainingError

LAST = "last.pt"
WEIGHTS = "weights.safetensors"


class AveragedWeights:
    """Exponential moving average of a net's weights and batch statistics."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: value.detach().clone() for name, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards the net; the decay rises from 0.1, so that it starts fast."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def save_checkpoint(
    folder: Path,
    net: nn.Module,
    average: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    step: int,
    preset: str,
) -> None:
    """Write the run's state, and the averaged weights apart for whoever wants only those."""
    from safetensors.torch import save

    buffer = io.BytesIO()
    torch.save(
        {
            "preset": preset,
            "step": step,
            "net": net.state_dict(),
            "average": average.state,
            "updates": average.updates,
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    write_atomic(folder / LAST, buffer.getvalue())
    contiguous = {name: value.contiguous().cpu() for name, value in average.state.items()}
    write_atomic(folder / WEIGHTS, save(contiguous, {"preset": preset, "step": str(step)}))


def load_checkpoint(
    folder: Path,
    net: nn.Module,
    average: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    preset: str,
) -> int:
    """Restore a run's state and return its step.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it is another preset's.
    """
    path = folder / LAST
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["preset"] != preset:
            raise TrainingError(
                f"expected a checkpoint of preset '{preset}' in {path}, got one of "
                f"'{state['preset']}'; resume with that preset or choose another folder"
            )
        net.load_state_dict(state["net"])
        for name, value in state["average"].items():
            average.state[name].copy_(value)
        average.updates = int(state["updates"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            f"expected a checkpoint to resume from in {path}, got: {error}; "
            "start a new run in another folder"
        ) from error


def load_weights(path: Path, net: nn.Module) -> None:
    """Load weights in safetensors form into a net, or into its backbone where they are one's.

    Raises:
        TrainingError: the file cannot be read or its tensors do not fit.
    """
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except Exception as error:
        raise TrainingError(f"expected safetensors weights in {path}, got: {error}") from error
    target = net if any(name.startswith("backbone.") for name in weights) else net.backbone
    if not isinstance(target, nn.Module):
        raise TrainingError(f"expected a net with a backbone, got {type(net).__name__}")
    own = target.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    classifier = {name for name in weights if name.startswith("fc.")}
    missing = sorted(own.keys() - weights.keys() - counters)
    extra = sorted(weights.keys() - own.keys() - classifier)
    shapes = sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
    if missing or extra or shapes:
        raise TrainingError(
            f"expected the weights of {type(target).__name__} in {path}; "
            f"missing {missing[:5]}, unexpected {extra[:5]}, of another shape {shapes[:5]}"
        )
    target.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
