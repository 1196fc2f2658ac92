"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared data folder, named by EDGEFACE_DATA."""
    folder = os.environ.get("EDGEFACE_DATA")
    if not folder:
        pytest.skip("EDGEFACE_DATA does not name the data folder")
    return Path(folder)


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """scikit-image's public-domain portrait, BGR uint8 (512, 512, 3)."""
    skimage = pytest.importorskip("skimage.data")
    image = skimage.astronaut()[..., ::-1].copy()
    image.setflags(write=False)
    return image
