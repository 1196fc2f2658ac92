"""Checkpoints of the well-known PyTorch RetinaFace repositories, renamed to edgeface's keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.nets.weights import StateDict, load_weights, read_state_dict

if TYPE_CHECKING:
    import torch

    from edgeface.nets import DetectorNet

HEADS = {"ClassHead": "classes", "BboxHead": "boxes", "LandmarkHead": "landmarks"}
BRANCHES = {
    "conv3X3": "branch3",
    "conv5X5_1": "reduce",
    "conv5X5_2": "branch5",
    "conv7X7_2": "branch7.0",
    "conv7x7_3": "branch7.1",
}
# Groups: what numbers the level, and what names the part.
PATTERNS = (
    (re.compile(r"body\.(?P<part>.+)"), "backbone.{part}"),
    (re.compile(r"fpn\.output(?P<level>\d)\.(?P<part>.+)"), "neck.lateral.{level}.{part}"),
    (re.compile(r"fpn\.merge(?P<level>\d)\.(?P<part>.+)"), "neck.smooth.{level}.{part}"),
    (
        re.compile(rf"ssh(?P<level>\d)\.(?P<branch>{'|'.join(BRANCHES)})\.(?P<part>.+)"),
        "context.{level}.{branch}.{part}",
    ),
)
HEAD_PATTERN = re.compile(rf"(?P<head>{'|'.join(HEADS)})\.(?P<level>\d)\.conv1x1\.(?P<part>.+)")


def rename_key(key: str) -> str:
    """Translate one key, as ``ssh1.conv3X3.0.weight``; an unknown key comes back as it is."""
    if match := HEAD_PATTERN.fullmatch(key):
        return f"head.levels.{match['level']}.{HEADS[match['head']]}.{match['part']}"
    for pattern, template in PATTERNS:
        if match := pattern.fullmatch(key):
            groups = match.groupdict()
            if "level" in groups:
                groups["level"] = str(int(groups["level"]) - 1)
            if "branch" in groups:
                groups["branch"] = BRANCHES[groups["branch"]]
            return template.format(**groups)
    return key


def rename(state: StateDict) -> dict[str, torch.Tensor]:
    """Translate the keys of a community state dict to those of edgeface's RetinaFace presets."""
    return {rename_key(key): tensor for key, tensor in state.items()}


def load_community(path: str | Path, preset: str) -> DetectorNet:
    """Load a community checkpoint into a preset.

    Args:
        path: ``.safetensors`` or ``.pth``; see ``read_state_dict``.
        preset: name from ``edgeface.nets.presets``.

    Returns:
        The net, in evaluation mode.

    Raises:
        MissingDependencyError: torch or safetensors is not installed.
        ModelNotFoundError: there is no such file.
        InvalidOptionError: unknown preset.
        CheckpointError: the file is no state dict, or its weights do not fit the preset.
    """
    return load_weights(preset, rename(read_state_dict(path)))
