"""A soft rasteriser in plain torch: triangles to pixels, differentiable in positions and colours.

A triangle covers a pixel by a sigmoid of the pixel's signed distance to its nearest edge line, so
that gradients reach across outlines; it reaches half a pixel further than its edges, so that no
seams show. Triangles over one pixel mix by their coverage and nearness (after Liu et al. 2019, Soft
Rasterizer). Of all triangles only the few that weigh most at a pixel are computed; the choice
itself has no gradient.
"""

from __future__ import annotations

import torch
from torch.nn import functional

CANDIDATES = 8
SOFTNESS = 0.2
REACH = 0.5
DEPTH_SOFTNESS = 0.1
LEAST_AREA = 1e-4


def rasterize(
    points: torch.Tensor,
    depths: torch.Tensor,
    colours: torch.Tensor,
    triangles: torch.Tensor,
    size: int,
    candidates: int = CANDIDATES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw coloured meshes.

    Args:
        points: (N, V, 2) x and y of the vertices, from -1 to 1 over the picture.
        depths: (N, V); smaller is nearer.
        colours: (N, V, 3), mixed linearly inside a triangle.
        triangles: int64 (T, 3) corners, of every mesh.
        size: side of the square picture in pixels.
        candidates: triangles that are computed at each pixel.

    Returns:
        Colours (N, size, size, 3), of the nearest triangle even where none covers the pixel, and
        coverage (N, size, size), 0 to 1.
    """
    pixels = _pixel_centres(size, points)
    corners = ((points + 1) * (size / 2))[:, triangles]
    edges = _edge_functions(corners)
    nearness = -depths[:, triangles] / DEPTH_SOFTNESS
    with torch.no_grad():
        chosen = _heaviest(edges, nearness, pixels, min(candidates, len(triangles)))
    pictures = torch.arange(len(points), device=points.device)[:, None, None]
    barycentric, distance = _position(edges[pictures, chosen], pixels[:, None])
    covering = (distance + REACH) / SOFTNESS
    inside = barycentric.clamp(0, 1)
    inside = inside / inside.sum(-1, keepdim=True)
    near = (inside * nearness[pictures, chosen]).sum(-1)
    weights = (functional.logsigmoid(covering) + near).softmax(-1)
    drawn = (inside[..., None] * colours[:, triangles][pictures, chosen]).sum(-2)
    picture = (weights[..., None] * drawn).sum(-2)
    covered = 1 - (-covering).sigmoid().prod(-1)
    shape = (len(points), size, size)
    return picture.view(*shape, 3), covered.view(shape)


def _pixel_centres(size: int, like: torch.Tensor) -> torch.Tensor:
    """Homogeneous pixel centres (size * size, 3), row by row: x, y, 1."""
    steps = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3)


def _edge_functions(corners: torch.Tensor) -> torch.Tensor:
    """Affine functions (N, T, 3 edges, 4) of the pixel: barycentric as x, y, 1, and the height.

    A barycentric coordinate times the height of its corner is the distance to the edge opposite.
    """
    following, last = corners.roll(-1, 2), corners.roll(-2, 2)
    edge = last - following
    normal = torch.stack([-edge[..., 1], edge[..., 0]], -1)
    offset = -(normal * following).sum(-1, keepdim=True)
    area = (normal[:, :, :1] * corners[:, :, :1]).sum(-1, keepdim=True) + offset[:, :, :1]
    area = torch.where(area.abs() < LEAST_AREA, torch.full_like(area, LEAST_AREA), area)
    height = area.abs() / edge.norm(dim=-1, keepdim=True).clamp(min=LEAST_AREA)
    return torch.cat([normal / area, offset / area, height], -1)


def _position(edges: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Barycentric coordinates (..., 3) and signed distance to the nearest edge, inside positive."""
    barycentric = (edges[..., :3] * pixels[..., None, :]).sum(-1)
    return barycentric, (barycentric * edges[..., 3]).amin(-1)


def _heaviest(
    edges: torch.Tensor, nearness: torch.Tensor, pixels: torch.Tensor, count: int
) -> torch.Tensor:
    """Numbers (N, P, count) of the triangles that weigh most at each pixel, about."""
    distances = (edges[..., :3] * edges[..., 3:]).unbind(2)
    first, second, third = (pixels @ distance.mT for distance in distances)
    distance = torch.minimum(torch.minimum(first, second), third) + REACH
    weights = (distance / SOFTNESS).clamp_(max=0) + nearness.mean(-1)[:, None]
    return weights.topk(count, -1).indices
