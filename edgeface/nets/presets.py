"""Presets: a function's name is the preset's name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.errors import InvalidOptionError
from edgeface.nets.backbones.mobilenet import MobileNet025
from edgeface.nets.backbones.resnet import ResNet18
from edgeface.nets.context.ssh import ContextModule
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead
from edgeface.nets.necks.fpn import FeaturePyramid

PresetFunction = Callable[[], DetectorNet]
_PRESETS: dict[str, PresetFunction] = {}

# Two sizes per cell on P3 to P5: the light variant of section 4.8, retinaface.txt.
LIGHT_ANCHORS = AnchorSpec(
    (
        AnchorLevel(8, (16.0, 32.0)),
        AnchorLevel(16, (64.0, 128.0)),
        AnchorLevel(32, (256.0, 512.0)),
    )
)
LIGHT_LEAK = 0.1


def preset(function: PresetFunction) -> PresetFunction:
    """Register a preset under its function's name."""
    _PRESETS[function.__name__] = function
    return function


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(_PRESETS)


def build(name: str) -> DetectorNet:
    """Build a preset with fresh weights; raises InvalidOptionError for an unknown name."""
    if name not in _PRESETS:
        raise InvalidOptionError(f"expected a preset of {', '.join(presets())}, got {name!r}")
    return _PRESETS[name]()


def _light_retinaface(name: str, backbone: MobileNet025 | ResNet18, width: int) -> DetectorNet:
    anchors = LIGHT_ANCHORS
    return DetectorNet(
        name,
        backbone,
        FeaturePyramid(backbone.stages, width, LIGHT_LEAK),
        nn.ModuleList(ContextModule(width, LIGHT_LEAK) for _ in anchors.levels),
        AnchorHead(width, anchors.levels),
        anchors,
    )


@preset
def retinaface_mobilenet025() -> DetectorNet:
    """RetinaFace's light variant: MobileNet-0.25, P3 to P5, no deformable layers."""
    return _light_retinaface("retinaface_mobilenet025", MobileNet025(), 64)


@preset
def retinaface_resnet18() -> DetectorNet:
    """RetinaFace on ResNet-18, P3 to P5, no deformable layers."""
    return _light_retinaface("retinaface_resnet18", ResNet18(), 64)
