"""The dense regression branch: anchors to rendered faces to the pixel loss (equation 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.training.dense import camera, light
from edgeface.training.dense.graph import CODE, MeshDecoder
from edgeface.training.dense.mesh import template_mesh
from edgeface.training.dense.rasterizer import rasterize

VALUES = (CODE, camera.PARAMETERS, light.PARAMETERS)
CROP = 32
SMALLEST = 32.0
MOST = 8
CAMERA_GAIN, LIGHT_GAIN = 0.1, 0.1


class DenseBranch(nn.Module):
    """Predicts a face's mesh, camera and light from one feature vector, and draws it.

    The vector is that of the anchor's cell, so a linear layer does what the paper's 1x1
    convolution does (section 3.2), on the chosen anchors alone. The paper's decoder is pretrained
    on scans; this one learns from nothing but the pixels, from a template made in code.

    Args:
        width: channels of the pyramid.
        per_cell: anchors at each cell.
    """

    triangles: torch.Tensor

    def __init__(self, width: int, per_cell: int) -> None:
        super().__init__()
        mesh = template_mesh()
        self.predict = nn.Linear(width, per_cell * sum(VALUES))
        self.per_cell = per_cell
        self.decoder = MeshDecoder(mesh)
        self.register_buffer("triangles", torch.from_numpy(mesh.triangles), persistent=False)

    def forward(
        self, vectors: torch.Tensor, slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the faces of K anchors.

        Args:
            vectors: (K, width), the feature vectors of their cells.
            slots: int64 (K,): which of the cell's anchors each is.

        Returns:
            BGR pictures (K, CROP, CROP, 3), 1 is white, and their coverage (K, CROP, CROP).
        """
        values = self.predict(vectors).unflatten(1, (self.per_cell, sum(VALUES)))
        values = values[torch.arange(len(vectors), device=vectors.device), slots]
        code, view, lamp = values.split(VALUES, 1)
        vertices, colours = self.decoder(code)
        points, depths = camera.project(vertices, camera.default_camera(CAMERA_GAIN * view))
        normals = light.vertex_normals(vertices, self.triangles)
        lamps = light.default_light(LIGHT_GAIN * lamp)
        shaded = light.shade(vertices, normals, colours, lamps)
        return rasterize(points, depths, shaded, self.triangles, CROP)


class ChosenAnchors(NamedTuple):
    """Anchors that the branch learns from.

    Attributes:
        vectors: (K, C) feature vectors of their cells.
        slots: int64 (K,): which of the cell's anchors each is.
        owners: int64 (K,): their pictures.
        boxes: float32 (K, 4) centre-size, in pixels.
    """

    vectors: torch.Tensor
    slots: torch.Tensor
    owners: torch.Tensor
    boxes: torch.Tensor


def dense_losses(
    branch: DenseBranch,
    anchors: AnchorSpec,
    features: Sequence[torch.Tensor],
    images: torch.Tensor,
    positives: torch.Tensor,
) -> torch.Tensor:
    """Pixel losses (K,) of up to ``MOST`` positive anchors of a batch.

    Args:
        branch: draws the faces.
        anchors: the net's.
        features: pyramid levels (N, C, h, w) that the head sees, finest first.
        images: (N, 3, H, W) BGR, 0 to 255.
        positives: int64: the positive anchors in the flattened (N * A).
    """
    with torch.autocast(images.device.type, enabled=False):
        chosen = choose_anchors(anchors, features, images, positives)
        drawn, coverage = branch(chosen.vectors.float(), chosen.slots)
        crops = anchor_crops(images.float(), chosen.boxes, chosen.owners)
        return pixel_losses(drawn, coverage, crops)


def choose_anchors(
    anchors: AnchorSpec,
    features: Sequence[torch.Tensor],
    images: torch.Tensor,
    positives: torch.Tensor,
    most: int = MOST,
) -> ChosenAnchors:
    """Choose positive anchors of at least ``SMALLEST`` pixels, evenly through the batch."""
    priors = torch.from_numpy(prior_boxes(anchors, *images.shape[2:])).to(images.device)
    large = positives[priors[positives % len(priors), 2:].amin(1) >= SMALLEST]
    steps = torch.linspace(0, max(len(large) - 1, 0), min(most, len(large)), device=large.device)
    chosen = large[steps.round().long()]
    chosen = chosen[(chosen % len(priors)).argsort()]
    owners, numbers = chosen // len(priors), chosen % len(priors)
    vectors, slots, first = [], [], 0
    for level, maps in zip(anchors.levels, features, strict=True):
        count = maps.shape[2] * maps.shape[3] * level.per_cell
        here = (numbers >= first) & (numbers < first + count)
        within = numbers[here] - first
        vectors.append(maps.flatten(2)[owners[here], :, within // level.per_cell])
        slots.append(within % level.per_cell)
        first += count
    return ChosenAnchors(torch.cat(vectors), torch.cat(slots), owners, priors[numbers])


def anchor_crops(
    images: torch.Tensor, priors: torch.Tensor, owners: torch.Tensor, size: int = CROP
) -> torch.Tensor:
    """Cut anchors out of their pictures.

    Args:
        images: (N, 3, H, W) BGR, 0 to 255.
        priors: (K, 4) centre-size boxes in pixels; what lies outside the picture is black.
        owners: int64 (K,): the picture of each.
        size: side of the crops.

    Returns:
        BGR (K, size, size, 3), 0 to 1.
    """
    height, width = images.shape[2:]
    steps = (torch.arange(size, dtype=priors.dtype, device=priors.device) + 0.5) / size - 0.5
    x = priors[:, None, 0] + steps * priors[:, None, 2]
    y = priors[:, None, 1] + steps * priors[:, None, 3]
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(-1, size, size),
            (2 * y / height - 1)[:, :, None].expand(-1, size, size),
        ],
        -1,
    )
    crops = [
        functional.grid_sample(images[owner : owner + 1], one[None], align_corners=False)
        for owner, one in zip(owners.tolist(), grid, strict=True)
    ]
    stacked = torch.cat([images.new_zeros(0, 3, size, size), *crops])
    return stacked.permute(0, 2, 3, 1) / 255


def pixel_losses(drawn: torch.Tensor, coverage: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """L1 between drawings and crops (K,), averaged over the pixels (equation 3).

    Behind the mesh stands the crop's mean colour: a mesh gains where it explains the picture
    better than that, so it neither shrinks away nor spreads over what is no face.
    """
    background = crops.mean((1, 2), keepdim=True)
    pictures = coverage[..., None] * drawn + (1 - coverage[..., None]) * background
    return (pictures - crops).abs().sum(-1).mean((1, 2))
