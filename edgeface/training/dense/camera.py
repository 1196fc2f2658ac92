"""The camera that a mesh is seen by: seven parameters (section 3.2, retinaface.txt)."""

from __future__ import annotations

import torch

PARAMETERS = 7
DISTANCE = 5.0
# At this focal length the template fills most of the crop.
FOCAL_LENGTH = 4.6
NEAREST = 0.5


def default_camera(raw: torch.Tensor) -> torch.Tensor:
    """Cameras (N, 7) in front of the face, moved by what a net predicts (N, 7).

    A prediction of zero is a frontal view; the focal length stays positive.
    """
    offset = raw.new_tensor([0, 0, -DISTANCE, 0, 0, 0])
    return torch.cat([raw[:, :6] + offset, FOCAL_LENGTH * raw[:, 6:].clamp(-1, 1).exp()], 1)


def rotation(vectors: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (N, 3, 3) of axis-angle vectors (N, 3) in radians."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    matrices: torch.Tensor = torch.linalg.matrix_exp(cross)
    return matrices


def project(vertices: torch.Tensor, camera: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See vertices through a pinhole.

    Args:
        vertices: (N, V, 3) in the face's frame: x right, y down, z away from the camera.
        camera: (N, 7): location x, y, z; pose, an axis-angle vector in radians by which the face
            turns about its origin; focal length in half crop widths.

    Returns:
        Points (N, V, 2) in the crop, from -1 to 1, and their depths (N, V). What lies behind the
        camera is drawn to the nearest depth.
    """
    turned = vertices @ rotation(camera[:, 3:6]).transpose(1, 2)
    seen = turned - camera[:, None, :3]
    depth = seen[..., 2].clamp(min=NEAREST)
    return camera[:, None, 6:] * seen[..., :2] / depth[..., None], depth
