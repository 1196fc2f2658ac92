"""edgeface: faces, scores and landmarks from the best backend of the machine.

Names load on first use, so that ``import edgeface`` costs next to nothing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeface.detector import Detector
    from edgeface.errors import EdgeFaceError
    from edgeface.faces import Faces
    from edgeface.quality import BestShots
    from edgeface.tracking import Tracker
    from edgeface.tuning import tune

    __version__: str

__all__ = ["BestShots", "Detector", "EdgeFaceError", "Faces", "Tracker", "__version__", "tune"]

_HOMES = {
    "BestShots": "edgeface.quality",
    "Detector": "edgeface.detector",
    "EdgeFaceError": "edgeface.errors",
    "Faces": "edgeface.faces",
    "Tracker": "edgeface.tracking",
    "tune": "edgeface.tuning",
}

# In a source checkout edgeface.runtimes, .converters and .calibration stand beside this folder.
_ROOT = Path(__file__).parents[1]
if (_ROOT / "pyproject.toml").is_file():
    __path__.append(str(_ROOT))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'edgeface' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edgeface")
    except PackageNotFoundError:
        return "0+uninstalled"
