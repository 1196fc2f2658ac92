"""The template face mesh: the front of an ellipsoid, made in code, with its five landmarks.

A hexagon of triangles is subdivided, rounded to a disc, and laid on an ellipsoid's front, on which
a Gaussian bump makes the nose; the vertices nearest to the landmarks move onto them. Lengths are in
half face heights; x points right and y down, as in pictures, z away from the camera, so that the
nose points to -z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

HALF_AXES = (0.75, 1.0, 0.7)
COVERED = 0.96
NOSE, NOSE_HEIGHT, NOSE_RADIUS = (0.0, 0.12), 0.25, 0.16
# Left and right eye, nose tip, left and right mouth corner, as seen in the picture.
LANDMARKS = ((-0.30, -0.25), (0.30, -0.25), NOSE, (-0.24, 0.50), (0.24, 0.50))


@dataclass(frozen=True)
class Mesh:
    """A template mesh with the coarser meshes that it is a subdivision of.

    Attributes:
        vertices: float32 (V, 3).
        triangles: int64 (T, 3), clockwise as the camera sees them.
        landmarks: int64 (5,): the vertices that are the five landmarks.
        adjacency: float32 (v, v) of each mesh, coarsest first: 1 where an edge is.
        upsampling: float32 (v, u) from each mesh to the next: a new vertex is the mean of the two
            ends of the edge that it halves, the others stay.
    """

    vertices: Floats
    triangles: Integers
    landmarks: Integers
    adjacency: tuple[Floats, ...]
    upsampling: tuple[Floats, ...]


def template_mesh(subdivisions: int = 3) -> Mesh:
    """Make the template; 3 subdivisions give 217 vertices and 384 triangles."""
    plane, triangles = _hexagon()
    adjacency, upsampling = [_adjacency(len(plane), triangles)], []
    for _ in range(subdivisions):
        triangles, matrix = _subdivide(len(plane), triangles)
        plane = matrix @ plane
        upsampling.append(matrix)
        adjacency.append(_adjacency(len(plane), triangles))
    disc = _rounded(plane) * HALF_AXES[:2]
    to_landmarks = np.linalg.norm(disc[None] - np.array(LANDMARKS)[:, None], axis=2)
    landmarks = to_landmarks.argmin(1)
    disc[landmarks] = LANDMARKS
    vertices = np.column_stack([disc, _depth(disc)]).astype(np.float32)
    return Mesh(vertices, triangles, landmarks, tuple(adjacency), tuple(upsampling))


def _hexagon() -> tuple[Floats, Integers]:
    """Six triangles around the origin; corners at distance 1."""
    angles = np.arange(6) * np.pi / 3
    corners = np.column_stack([np.cos(angles), np.sin(angles)])
    plane = np.concatenate([np.zeros((1, 2)), corners]).astype(np.float32)
    return plane, np.array([[0, 1 + k, 1 + (k + 1) % 6] for k in range(6)])


def _subdivide(vertices: int, triangles: Integers) -> tuple[Integers, Floats]:
    """Four triangles for each, by halving the edges; and the matrix that gives the vertices."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2)
    unique, inverse = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    matrix = np.zeros((vertices + len(unique), vertices), np.float32)
    matrix[np.arange(vertices), np.arange(vertices)] = 1
    np.put_along_axis(matrix[vertices:], unique, 0.5, axis=1)
    (a, b, c), (ab, bc, ca) = triangles.T, vertices + inverse.reshape(-1, 3).T
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([np.column_stack(quarter) for quarter in quarters]), matrix


def _adjacency(vertices: int, triangles: Integers) -> Floats:
    matrix = np.zeros((vertices, vertices), np.float32)
    matrix[triangles, np.roll(triangles, 1, axis=1)] = 1
    return np.maximum(matrix, matrix.T)


def _rounded(plane: Floats) -> NDArray[np.float64]:
    """Stretch a hexagon to the unit disc, ring by ring."""
    radius = np.linalg.norm(plane, axis=1)
    angles = np.arctan2(plane[:, 1], plane[:, 0])
    apothem = np.cos((angles % (np.pi / 3)) - np.pi / 6) / np.cos(np.pi / 6)
    ring = radius * apothem
    return np.column_stack([ring * np.cos(angles), ring * np.sin(angles)])


def _depth(disc: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = np.square(COVERED * disc / HALF_AXES[:2]).sum(1)
    nose = np.square(disc - NOSE).sum(1) / (2 * NOSE_RADIUS**2)
    depth: NDArray[np.float64] = -HALF_AXES[2] * np.sqrt(1 - radius) - NOSE_HEIGHT * np.exp(-nose)
    return depth
