"""Graph convolution, and the decoder from a code to a coloured mesh (section 3.2, equation 2)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from edgeface.training.dense.mesh import Mesh

ORDER = 3
CODE = 128
WIDTHS = (32, 32, 16, 16)
SHAPE_RANGE = 0.3
# A mean skin in BGR, 0 to 1, that the decoder's textures start from.
SKIN = (0.45, 0.52, 0.70)


def scaled_laplacian(adjacency: NDArray[np.float32]) -> torch.Tensor:
    """Laplacian D - E of a mesh, its eigenvalues scaled to [-1, 1]: float32 (V, V)."""
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    largest = np.linalg.eigvalsh(laplacian)[-1]
    return torch.from_numpy((2 / largest * laplacian - np.eye(len(adjacency))).astype(np.float32))


class ChebyshevConvolution(nn.Module):
    """Graph convolution by Chebyshev polynomials of the scaled Laplacian (equation 2).

    The Laplacian is kept dense: a mesh has some hundred vertices here.

    Args:
        laplacian: (V, V), scaled.
        inputs: input channels.
        outputs: output channels.
        order: K, the number of polynomials; a vertex hears of vertices K - 1 edges away.
    """

    laplacian: torch.Tensor

    def __init__(
        self, laplacian: torch.Tensor, inputs: int, outputs: int, order: int = ORDER
    ) -> None:
        super().__init__()
        self.register_buffer("laplacian", laplacian, persistent=False)
        self.weight = nn.Parameter(torch.empty(order, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=(2 / (order * inputs)) ** 0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, V, inputs) to (N, V, outputs)."""
        terms = [features, self.laplacian @ features]
        while len(terms) < len(self.weight):
            terms.append(2 * self.laplacian @ terms[-1] - terms[-2])
        products = [term @ weight for term, weight in zip(terms, self.weight, strict=False)]
        return torch.stack(products).sum(0) + self.bias


class MeshDecoder(nn.Module):
    """Joint decoder of shape and texture: graph convolutions between mesh upsamplings.

    The shape starts as the template, the texture as mean skin.
    """

    template: torch.Tensor

    def __init__(self, mesh: Mesh, code: int = CODE, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        laplacians = [scaled_laplacian(adjacency) for adjacency in mesh.adjacency]
        self.coarsest, self.widths = len(laplacians[0]), widths
        self.expand = nn.Linear(code, self.coarsest * widths[0])
        channels = zip(laplacians, (widths[0], *widths), widths, strict=False)
        self.convolutions = nn.ModuleList(ChebyshevConvolution(*one) for one in channels)
        self.last = ChebyshevConvolution(laplacians[-1], widths[len(laplacians) - 1], 6)
        nn.init.normal_(self.last.weight, std=0.01)
        self.register_buffer("template", torch.from_numpy(mesh.vertices), persistent=False)
        for level, matrix in enumerate(mesh.upsampling):
            self.register_buffer(f"upsampling{level}", torch.from_numpy(matrix), persistent=False)

    def forward(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode (N, code) to vertices (N, V, 3) and their BGR colours (N, V, 3), 0 to 1."""
        features = self.expand(codes).view(len(codes), self.coarsest, self.widths[0])
        for level, convolution in enumerate(self.convolutions):
            if level:
                features = self.get_buffer(f"upsampling{level - 1}") @ features
            features = functional.elu(convolution(features))
        shape, texture = self.last(features).split(3, dim=2)
        skin = torch.logit(texture.new_tensor(SKIN))
        return self.template + SHAPE_RANGE * shape.tanh(), (skin + texture).sigmoid()
