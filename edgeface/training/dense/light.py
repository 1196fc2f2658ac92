"""Lambertian light: a point source and ambient light, nine parameters (section 3.2)."""

from __future__ import annotations

import torch
from torch.nn import functional

PARAMETERS = 9
SOURCE = (0.0, -1.0, -5.0)
DIFFUSE, AMBIENT = 0.3, 0.7


def default_light(raw: torch.Tensor) -> torch.Tensor:
    """Lights (N, 9) from above the camera, moved by what a net predicts (N, 9)."""
    return raw + raw.new_tensor([*SOURCE, *[DIFFUSE] * 3, *[AMBIENT] * 3])


def vertex_normals(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Unit normals (N, V, 3) towards the camera's side: means of the triangles', by area."""
    a, b, c = vertices[:, triangles].unbind(2)
    faces = torch.linalg.cross(c - a, b - a)
    corners = triangles.flatten()
    summed = torch.zeros_like(vertices).index_add(1, corners, faces.repeat_interleave(3, dim=1))
    return functional.normalize(summed, dim=2, eps=1e-8)


def shade(
    vertices: torch.Tensor, normals: torch.Tensor, colours: torch.Tensor, light: torch.Tensor
) -> torch.Tensor:
    """Light coloured vertices.

    Args:
        vertices: (N, V, 3) in the face's frame.
        normals: (N, V, 3), of length 1.
        colours: (N, V, 3) BGR, 0 to 1.
        light: (N, 9): location of the point source, its BGR colour, the ambient BGR colour.

    Returns:
        (N, V, 3) BGR; 1 is white.
    """
    source, diffuse, ambient = torch.split(light[:, None], 3, dim=2)
    towards = functional.normalize(source - vertices, dim=2)
    cosine = (normals * towards).sum(2, keepdim=True).clamp(min=0)
    lit: torch.Tensor = colours * (ambient + diffuse * cosine)
    return lit
