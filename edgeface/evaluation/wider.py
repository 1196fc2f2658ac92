"""WIDER FACE's validation set: the pictures on disk and the official ground truth for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DatasetError, InvalidOptionError, missing_extra
from edgeface.imageio import PICTURES

Item = TypeVar("Item")

SUBSETS = ("easy", "medium", "hard")
GROUND_TRUTH_FOLDERS = ("", "ground_truth", "wider_face_split", "eval_tools/ground_truth")
IMAGE_FOLDERS = ("images", "WIDER_val/images")


@dataclass(frozen=True)
class WiderImage:
    """One picture of the validation set.

    Attributes:
        path: the picture.
        event: the official event, such as "0--Parade".
        name: the official file name without suffix.
        faces: float64 (N, 4), x1, y1, x2, y2 in pixels of the original picture.
        keep: for each of SUBSETS, bool (N,): the faces that count; the others are ignored.
    """

    path: Path
    event: str
    name: str
    faces: NDArray[np.float64]
    keep: dict[str, NDArray[np.bool_]]


def load_wider(root: str | Path, limit: int | None = None) -> list[WiderImage]:
    """Load the pictures under ``root`` that the official ground truth knows.

    The pictures lie in ``images/`` or ``WIDER_val/images/``, by event, with any picture suffix;
    the four official .mat files in ``root`` itself, ``ground_truth/``, ``wider_face_split/`` or
    ``eval_tools/ground_truth/``.

    Args:
        root: folder of the dataset.
        limit: use only so many pictures, spread evenly over the events.

    Raises:
        DatasetError: a folder or .mat file is missing or damaged, or no known picture is there.
        InvalidOptionError: limit is below 1.
        MissingDependencyError: scipy is not installed.
    """
    root = Path(root)
    pictures = _find_pictures(root)
    val = _load_mat(root, "wider_face_val.mat")
    subsets = {name: _load_mat(root, f"wider_{name}_val.mat") for name in SUBSETS}
    try:
        images = list(_read(val, subsets, pictures))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(
            f"expected the official WIDER FACE ground truth under {root}, got .mat files that do "
            f"not fit it ({error!r}); fetch the official eval_tools again"
        ) from error
    if not images:
        raise DatasetError(
            f"expected pictures of WIDER FACE's validation set under {root}, got {len(pictures)} "
            "pictures of which the ground truth knows none; check that they keep their official "
            "event folders and names"
        )
    return spread(images, limit)


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Choose at most ``limit`` items, evenly from first to last; None: all of them.

    Raises:
        InvalidOptionError: limit is below 1.
    """
    if limit is None:
        return list(items)
    if limit < 1:
        raise InvalidOptionError(f"expected a limit of at least 1 picture, got {limit}")
    count = min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _find_pictures(root: Path) -> dict[tuple[str, str], Path]:
    folders = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    if not folders:
        raise DatasetError(
            f"expected a folder {' or '.join(IMAGE_FOLDERS)} in {root}, got none; point at the "
            "folder that holds WIDER FACE's validation pictures and ground truth"
        )
    return {
        (path.parent.name, path.stem): path
        for path in folders[0].glob("*/*")
        if path.suffix.lower() in PICTURES
    }


def _load_mat(root: Path, name: str) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("scipy", "train") from error
    candidates = [root / folder / name for folder in GROUND_TRUTH_FOLDERS]
    for path in candidates:
        if path.is_file():
            break
    else:
        raise DatasetError(
            f"expected {name} in one of {', '.join(str(path.parent) for path in candidates)}, "
            "got none; it is part of WIDER FACE's official eval_tools"
        )
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise DatasetError(
            f"expected a MATLAB file in {path}, but it cannot be read ({error}); "
            "fetch the official eval_tools again"
        ) from error
    return content


def _read(
    val: dict[str, Any], subsets: dict[str, dict[str, Any]], pictures: dict[tuple[str, str], Path]
) -> Iterator[WiderImage]:
    for e, event_cell in enumerate(val["event_list"][:, 0]):
        event = str(event_cell[0])
        for i, name_cell in enumerate(val["file_list"][e, 0][:, 0]):
            name = str(name_cell[0])
            path = pictures.get((event, name))
            if path is None:
                continue
            faces = val["face_bbx_list"][e, 0][i, 0].astype(np.float64).reshape(-1, 4)
            faces[:, 2:] += faces[:, :2]
            keep = {
                subset: _mask(mat["gt_list"][e, 0][i, 0], len(faces))
                for subset, mat in subsets.items()
            }
            yield WiderImage(path, event, name, faces, keep)


def _mask(indices: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Turn MATLAB's 1-based indices of the faces that count into a mask."""
    mask = np.zeros(count, np.bool_)
    mask[indices.astype(np.int64).ravel() - 1] = True
    return mask
