"""Checkpoints: everything that exact resumption needs, written by atomic rename."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeface.bundle import write_atomic
from edgeface.errors import CheckpointError, TrainingError
from edgeface.nets import DetectorNet
from edgeface.nets.weights import BATCH_COUNTER, load_into, read_state_dict
from edgeface.training.objectives import TrainingStep

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
    training: TrainingStep,
    average: AveragedWeights,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
) -> None:
    """Write the run's state, and the averaged weights apart for whoever wants only those."""
    from safetensors.torch import save

    buffer = io.BytesIO()
    torch.save(
        {
            "preset": training.net.preset,
            "step": step,
            "net": training.net.state_dict(),
            "objective": training.objective.state_dict(),
            "average": average.state,
            "updates": average.updates,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        },
        buffer,
    )
    write_atomic(folder / LAST, buffer.getvalue())
    contiguous = {name: value.contiguous().cpu() for name, value in average.state.items()}
    write_atomic(
        folder / WEIGHTS, save(contiguous, {"preset": training.net.preset, "step": str(step)})
    )


def load_checkpoint(
    folder: Path,
    training: TrainingStep,
    average: AveragedWeights,
    optimizers: Sequence[torch.optim.Optimizer],
) -> int:
    """Restore a run's state and return its step.

    Raises:
        TrainingError: there is no checkpoint, it is damaged, or it is another preset's.
    """
    path = folder / LAST
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["preset"] != training.net.preset:
            raise TrainingError(
                f"expected a checkpoint of preset '{training.net.preset}' in {path}, got one of "
                f"'{state['preset']}'; resume with that preset or choose another folder"
            )
        training.net.load_state_dict(state["net"])
        training.objective.load_state_dict(state["objective"])
        for name, value in state["average"].items():
            average.state[name].copy_(value)
        average.updates = int(state["updates"])
        for optimizer, content in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        return int(state["step"])
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            f"expected a checkpoint to resume from in {path}, got: {error}; "
            "start a new run in another folder"
        ) from error


def transfer_weights(path: Path, net: DetectorNet) -> int:
    """Load from another net's weights those whose name and shape fit; the others stay fresh.

    Returns:
        How many tensors were taken.

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: the file cannot be read, or none of its weights fits.
    """
    own = net.state_dict()
    fitting = {
        name: value
        for name, value in read_state_dict(path).items()
        if name in own and own[name].shape == value.shape and BATCH_COUNTER not in name
    }
    if not fitting:
        raise CheckpointError(
            f"expected weights in '{path}' of which some fit '{net.preset}' by name and shape, got "
            "none; transfer from a net with the same backbone"
        )
    load_into(net, {**own, **fitting}, f"preset '{net.preset}'")
    return len(fitting)


def load_initial_weights(path: Path, net: DetectorNet) -> None:
    """Load weights into a net, or into its backbone where they are one's (classifier left out).

    Raises:
        ModelNotFoundError: there is no such file.
        CheckpointError: the file cannot be read, or its weights do not fit.
    """
    state = read_state_dict(path)
    if any(name.startswith("backbone.") for name in state):
        load_into(net, state, f"preset '{net.preset}'")
    else:
        features = {name: value for name, value in state.items() if not name.startswith("fc.")}
        load_into(net.backbone, features, type(net.backbone).__name__)
