"""Backbones: picture to feature maps, finest first.

A backbone announces its stages, so that a neck configures itself: ``backbone.stages`` holds one
``Stage(channels, stride)`` for each feature map that ``forward`` returns. ``backbone.first_layers``
names its first two convolutions and their norms, which a recipe may keep as they were loaded.
"""

from typing import NamedTuple


class Stage(NamedTuple):
    """Channels of a feature map, and input pixels per cell of it."""

    channels: int
    stride: int
