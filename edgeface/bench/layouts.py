"""What comes out of others' graphs, and how it becomes faces.

Each is decoded as its own code decodes it: YuNet after OpenCV's FaceDetectorYN, RetinaFace after
the PyTorch repositories' ``convert_to_onnx``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeface.anchors import AnchorLevel, AnchorSpec, level_priors
from edgeface.bench.settings import Settings
from edgeface.errors import ModelIntegrityError
from edgeface.faces import Faces
from edgeface.nms import nms
from edgeface.postprocess import postprocess
from edgeface.preprocess import Letterbox

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Shapes = Mapping[str, Sequence[int | str | None]]

STRIDES = (8, 16, 32)
YUNET_PARTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
RETINAFACE_PARTS = {4: "delta", 2: "classes", 10: "landmark"}
RETINAFACE_ANCHORS = AnchorSpec(
    (AnchorLevel(8, (16, 32)), AnchorLevel(16, (64, 128)), AnchorLevel(32, (256, 512)))
)


@dataclass(frozen=True)
class Layout:
    """A family of graphs whose outputs can be read.

    Attributes:
        name: of the family.
        outputs: what they look like, in words.
        recognises: whether outputs of these shapes are theirs.
        mean: BGR value that is subtracted from the frame, and stands outside the picture.
        decode: from outputs by name, the frame's place and the settings to faces.
    """

    name: str
    outputs: str
    recognises: Callable[[Shapes], bool]
    mean: tuple[int, int, int]
    decode: Callable[[Mapping[str, Floats], Letterbox, Settings], Faces]


def find_layout(path: Path, shapes: Shapes) -> Layout:
    """Tell the layout by the outputs.

    Raises:
        ModelIntegrityError: it is none of the known ones.
    """
    for layout in LAYOUTS:
        if layout.recognises(shapes):
            return layout
    known = "; ".join(f"{layout.name}: {layout.outputs}" for layout in LAYOUTS)
    raise ModelIntegrityError(
        f"expected a detector of a known layout ({known}), got {path} with the outputs "
        f"{', '.join(shapes)}; edgeface's own models go to --model"
    )


def decode_yunet(outputs: Mapping[str, Floats], placed: Letterbox, settings: Settings) -> Faces:
    """Decode YuNet as OpenCV's FaceDetectorYN does.

    Args:
        outputs: per stride ``cls_``, ``obj_`` (1, cells, 1), ``bbox_`` (1, cells, 4) and ``kps_``
            (1, cells, 10), one prior per cell at its top left corner, in units of the stride; the
            boxes' sizes are logarithms.
        placed: how the picture lies in the frame.
        settings: thresholds.
    """
    boxes, scores, points = [], [], []
    for stride in STRIDES:
        classes, objects = (outputs[f"{kind}_{stride}"].ravel() for kind in ("cls", "obj"))
        score = np.sqrt(classes.clip(0, 1) * objects.clip(0, 1))
        kept = np.flatnonzero(score > settings.score_threshold)
        rows, columns = np.divmod(kept, placed.network_width // stride)
        corner = np.stack([columns, rows], axis=1).astype(np.float32)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[kept]
        centre, half = (corner + box[:, :2]) * stride, np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.hstack([centre - half, centre + half]))
        scores.append(score[kept])
        offsets = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[kept]
        points.append((offsets + corner[:, None]) * np.float32(stride))
    scale = np.array([placed.scale_x, placed.scale_y], np.float32)
    confidence = np.concatenate(scores)
    if not len(confidence):
        return Faces.empty()
    found = (np.concatenate(boxes) / np.tile(scale, 2)).astype(np.float32)
    landmarks = (np.concatenate(points) / scale).astype(np.float32)
    best = nms(found, confidence, settings.nms_threshold)[: settings.max_faces]
    return Faces(found[best], confidence[best], landmarks[best])


def decode_retinaface(
    outputs: Mapping[str, Floats], placed: Letterbox, settings: Settings
) -> Faces:
    """Decode RetinaFace as the PyTorch repositories export it.

    Args:
        outputs: boxes (1, N, 4), background and face (1, N, 2), which softmax may have seen, and
            landmarks (1, N, 10), over all levels, finest first, told apart by their widths.
        placed: how the picture lies in the frame.
        settings: thresholds.
    """
    parts = {RETINAFACE_PARTS[value.shape[-1]]: value[0] for value in outputs.values()}
    parts["logit"] = _logits(parts.pop("classes"), settings.score_threshold)[:, None]
    levels: dict[str, Floats] = {}
    start = 0
    for level in RETINAFACE_ANCHORS.levels:
        end = start + len(level_priors(level, placed.network_height, placed.network_width))
        levels |= {
            f"{kind}_{level.stride}": value[None, start:end] for kind, value in parts.items()
        }
        start = end
    return postprocess(
        levels,
        RETINAFACE_ANCHORS,
        placed,
        score_threshold=settings.score_threshold,
        nms_threshold=settings.nms_threshold,
        max_faces=settings.max_faces,
    )


def _logits(classes: Floats, threshold: float) -> Floats:
    """Log odds of a face, worked out where it scores above the threshold, else -infinity."""
    if not np.allclose(classes[:16].sum(axis=1), 1, atol=1e-3):
        return np.asarray(classes[:, 1] - classes[:, 0], np.float32)
    logits = np.full(len(classes), -np.inf, np.float32)
    above = np.flatnonzero(classes[:, 1] > threshold)
    with np.errstate(divide="ignore"):
        logits[above] = np.log(classes[above, 1] / classes[above, 0]).clip(max=88)
    return logits


def _is_yunet(shapes: Shapes) -> bool:
    wanted = {f"{kind}_{stride}": size for kind, size in YUNET_PARTS.items() for stride in STRIDES}
    return {name: shape[-1] for name, shape in shapes.items()} == wanted


def _is_retinaface(shapes: Shapes) -> bool:
    return len(shapes) == 3 and {shape[-1] for shape in shapes.values()} == set(RETINAFACE_PARTS)


YUNET = Layout(
    "YuNet",
    "cls_, obj_, bbox_ and kps_ at strides 8, 16 and 32",
    _is_yunet,
    (0, 0, 0),
    decode_yunet,
)
RETINAFACE = Layout(
    "RetinaFace",
    "three outputs, (1, N, 4), (1, N, 2) and (1, N, 10), as convert_to_onnx of the PyTorch "
    "repositories writes them",
    _is_retinaface,
    (104, 117, 123),
    decode_retinaface,
)
LAYOUTS = (YUNET, RETINAFACE)
