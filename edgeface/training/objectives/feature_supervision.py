"""Feature supervision module (section 3.4, refineface.txt): aligned features, told from background.

It exists in training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from edgeface.anchors import AnchorSpec
from edgeface.nms import nms
from edgeface.training.matching import IGNORED, NEGATIVE, POSITIVE, Matching
from edgeface.training.objectives.base import BatchTargets
from edgeface.training.objectives.roi_align import roi_align
from edgeface.training.objectives.second_matching import areas, intersections

BINS = 5
PROPOSALS = 512
NMS_THRESHOLD = 0.7
# Candidates that enter NMS, for each that may stay.
CANDIDATES = 4
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.4


class FeatureSupervision(nn.Module):
    """Three 3x3 convolutions, each half as wide as the one before, a fourth to one map, its mean.

    At the paper's 256 channels that is table 8's 387,360 weights, to the last.

    Args:
        width: channels of the pyramid's levels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, width // 2, width // 4, width // 8]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        """Map aligned features (R, width, BINS, BINS) to the logits (R,) of their being faces."""
        logits: torch.Tensor = self.layers(regions).mean((1, 2, 3))
        return logits


@torch.no_grad()
def propose(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    level_of_anchor: torch.Tensor,
    targets: BatchTargets,
    anchors: AnchorSpec,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The batch's faces, and its best predictions after NMS at 0.7, 512 in all.

    A prediction belongs to the level that it comes from, a face to the level whose anchors are
    nearest to its size.

    Args:
        logits: (N, A) of the second step.
        boxes: (N, A, 4) corners in pixels; they may reach outside the picture.
        level_of_anchor: int64 (A,).
        targets: for the faces.
        anchors: for the sizes of the levels.

    Returns:
        Boxes (R, 4), the samples (R,) that they belong to, and their levels (R,).
    """
    samples = len(logits)
    share = -(-PROPOSALS // samples)
    count = min(CANDIDATES * share, logits.shape[1])
    scores, index = logits.float().sigmoid().topk(count, dim=1)
    chosen, owners, levels, ranks = [], [], [], []
    for sample in range(samples):
        candidates = boxes[sample, index[sample]]
        kept = nms(candidates.cpu().numpy(), scores[sample].cpu().numpy(), NMS_THRESHOLD)
        best = torch.from_numpy(kept).to(candidates.device)
        chosen.append(candidates[best])
        owners.append(torch.full_like(best, sample))
        levels.append(level_of_anchor[index[sample, best]])
        ranks.append(scores[sample, best])
    faces = targets.faces[~targets.ignored][:PROPOSALS]
    rest = torch.cat(ranks).argsort(descending=True)[: PROPOSALS - len(faces)]
    return (
        torch.cat([faces, torch.cat(chosen)[rest]]),
        torch.cat([targets.owners[~targets.ignored][:PROPOSALS], torch.cat(owners)[rest]]),
        torch.cat([nearest_level(faces, anchors), torch.cat(levels)[rest]]),
    )


def nearest_level(faces: torch.Tensor, anchors: AnchorSpec) -> torch.Tensor:
    """Level (F,) of the anchor whose size is nearest to that of each box (F, 4), in log scale."""
    sizes = [(size, number) for number, level in enumerate(anchors.levels) for size in level.sizes]
    logs = torch.tensor([size for size, _ in sizes], device=faces.device).log()
    numbers = torch.tensor([number for _, number in sizes], device=faces.device)
    log_sizes = areas(faces).clamp(min=1).log() / 2
    return numbers[(log_sizes[:, None] - logs).abs().argmin(1)]


@torch.no_grad()
def label(
    boxes: torch.Tensor, owners: torch.Tensor, targets: BatchTargets, rules: Matching
) -> torch.Tensor:
    """Labels int8 (R,) of proposals: faces from IoU 0.7, background below 0.4, ignored between.

    A proposal that lies by ``rules.ignored_share`` in an ignored face is no background.
    """
    shared = intersections(boxes, targets.faces)
    shared[owners[:, None] != targets.owners] = 0
    overlap = shared / (areas(boxes)[:, None] + areas(targets.faces) - shared).clamp(min=1e-6)
    best = _most(overlap[:, ~targets.ignored])
    share = _most(shared[:, targets.ignored]) / areas(boxes).clamp(min=1e-6)
    labels = torch.full_like(owners, IGNORED, dtype=torch.int8)
    labels[(best < NEGATIVE_IOU) & (share < rules.ignored_share)] = NEGATIVE
    labels[best >= POSITIVE_IOU] = POSITIVE
    return labels


def _most(values: torch.Tensor) -> torch.Tensor:
    if not values.shape[1]:
        return values.new_zeros(len(values))
    return values.amax(1)


def align(
    pyramid: Sequence[torch.Tensor],
    anchors: AnchorSpec,
    boxes: torch.Tensor,
    owners: torch.Tensor,
    levels: torch.Tensor,
) -> torch.Tensor:
    """Features (R, width, BINS, BINS) of boxes, each from its own level; in the boxes' order."""
    parts, places = [], []
    for number, (features, level) in enumerate(zip(pyramid, anchors.levels, strict=True)):
        index = torch.nonzero(levels == number).flatten()
        parts.append(roi_align(features, boxes[index], owners[index], level.stride, BINS))
        places.append(index)
    return torch.cat(parts)[torch.cat(places).argsort()]
