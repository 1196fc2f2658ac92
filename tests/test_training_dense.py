"""The dense regression branch: its parts by hand and by finite differences, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from edgeface.anchors import AnchorLevel, AnchorSpec, prior_boxes  # noqa: E402
from edgeface.converters.onnx import to_onnx  # noqa: E402
from edgeface.nets import DetectorNet  # noqa: E402
from edgeface.nets.context import PerLevel  # noqa: E402
from edgeface.nets.heads.anchor import AnchorHead  # noqa: E402
from edgeface.nets.layers import conv_bn  # noqa: E402
from edgeface.training.dense import camera, light  # noqa: E402
from edgeface.training.dense.branch import (  # noqa: E402
    MOST,
    SMALLEST,
    DenseBranch,
    anchor_crops,
    choose_anchors,
    pixel_losses,
)
from edgeface.training.dense.graph import (  # noqa: E402
    ChebyshevConvolution,
    MeshDecoder,
    scaled_laplacian,
)
from edgeface.training.dense.mesh import Mesh, template_mesh  # noqa: E402
from edgeface.training.dense.rasterizer import rasterize  # noqa: E402
from edgeface.training.objectives import BatchTargets, build_objective  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

ANCHORS = AnchorSpec((AnchorLevel(16, (16.0, 48.0)), AnchorLevel(32, (64.0, 96.0))))


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return template_mesh()


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_template(mesh: Mesh) -> None:
    assert mesh.vertices.shape == (217, 3)
    assert mesh.triangles.shape == (384, 3)
    assert [len(one) for one in mesh.adjacency] == [7, 19, 61, 217]
    assert all((matrix.sum(1) == 1).all() for matrix in mesh.upsampling)
    degrees = mesh.adjacency[-1].sum(1)
    assert (degrees == 6).sum() == 217 - 48
    assert degrees.sum() / 2 == 217 + 384 - 1  # Euler's formula for a disc
    left_eye, right_eye, nose, left_mouth, right_mouth = mesh.vertices[mesh.landmarks]
    np.testing.assert_allclose(left_eye * [-1, 1, 1], right_eye)
    np.testing.assert_allclose(left_mouth * [-1, 1, 1], right_mouth)
    assert nose[2] == mesh.vertices[:, 2].min()
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_default_camera_sees_the_front_of_a_face_that_fills_the_crop(mesh: Mesh) -> None:
    vertices = torch.from_numpy(mesh.vertices)[None]
    points, depths = camera.project(vertices, camera.default_camera(torch.zeros(1, 7)))
    a, b, c = points[0, mesh.triangles].unbind(1)
    (abx, aby), (acx, acy) = (b - a).T, (c - a).T
    assert (abx * acy - aby * acx > 0).all()
    assert depths.argmin() == mesh.landmarks[2]
    assert 0.85 < points.abs().max() < 1.05
    normals = light.vertex_normals(vertices, torch.from_numpy(mesh.triangles))
    assert (normals[..., 2] < 0).all()


def test_graph_convolution_is_a_polynomial_of_the_laplacian(mesh: Mesh) -> None:
    """T_k(x) = cos(k arccos x) of the eigenvalues, as its closed form has it."""
    torch.manual_seed(0)
    laplacian = scaled_laplacian(mesh.adjacency[1]).double()
    values, vectors = torch.linalg.eigh(laplacian)
    assert values[0] == pytest.approx(-1, abs=1e-6)
    assert values[-1] == pytest.approx(1, abs=1e-6)
    convolution = ChebyshevConvolution(laplacian, 2, 3, order=5).double()
    features = doubles(1, 19, 2)
    angles = values.clamp(-1, 1).arccos()
    expected = sum(
        vectors @ torch.diag((k * angles).cos()) @ vectors.T @ features @ convolution.weight[k]
        for k in range(5)
    )
    torch.testing.assert_close(convolution(features), expected, atol=1e-6, rtol=1e-6)


def test_gradients_of_graph_convolution_and_decoder(mesh: Mesh) -> None:
    torch.manual_seed(0)
    small = template_mesh(1)
    decoder = MeshDecoder(small, code=2, widths=(4, 4)).double()
    assert torch.autograd.gradcheck(decoder, (doubles(1, 2),), fast_mode=True)
    convolution = ChebyshevConvolution(scaled_laplacian(small.adjacency[0]), 2, 2).double()
    weight = convolution.weight.detach().requires_grad_()

    def apply(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        del convolution.weight
        convolution.weight = weight
        out: torch.Tensor = convolution(features)
        return out

    assert torch.autograd.gradcheck(apply, (doubles(1, 7, 2), weight), fast_mode=True)


def test_decoder_starts_as_the_template(mesh: Mesh) -> None:
    torch.manual_seed(0)
    vertices, colours = MeshDecoder(mesh)(torch.zeros(2, 128))
    assert (vertices - torch.from_numpy(mesh.vertices)).abs().max() < 0.1
    assert colours.shape == (2, 217, 3)
    assert 0 < colours.min() < colours.max() < 1


def test_camera_by_hand() -> None:
    vertices = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, -1.0]]])
    frontal = torch.tensor([[0.0, 0.0, -5.0, 0.0, 0.0, 0.0, 2.0]])
    points, depths = camera.project(vertices, frontal)
    torch.testing.assert_close(points[0], torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.5]]))
    torch.testing.assert_close(depths[0], torch.tensor([5.0, 5.0, 4.0]))
    turned = frontal.clone()
    turned[0, 4] = math.pi / 2
    points, depths = camera.project(vertices, turned)
    torch.testing.assert_close(points[0, 1], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(depths[0, 1], torch.tensor(4.0))
    behind, _ = camera.project(vertices - torch.tensor([0.0, 0.0, 9.0]), frontal)
    assert behind.isfinite().all()


def test_gradients_of_the_camera() -> None:
    torch.manual_seed(0)
    for scale in (0.0, 0.3):
        raw = (scale * torch.randn(2, 7, dtype=torch.float64)).requires_grad_()

        def see(vertices: torch.Tensor, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return camera.project(vertices, camera.default_camera(raw))

        assert torch.autograd.gradcheck(see, (doubles(2, 4, 3), raw), fast_mode=True)


def test_light_by_hand() -> None:
    normals = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]])
    colours = torch.ones(1, 3, 3) * 0.5
    lamp = torch.tensor([[0.0, 0.0, -5.0, 0.6, 0.4, 0.2, 0.1, 0.2, 0.3]])
    shaded = light.shade(torch.zeros(1, 3, 3), normals, colours, lamp)
    ambient = torch.tensor([0.05, 0.1, 0.15])
    torch.testing.assert_close(shaded[0, 0], ambient + torch.tensor([0.3, 0.2, 0.1]))
    torch.testing.assert_close(shaded[0, 1], ambient)
    torch.testing.assert_close(shaded[0, 2], ambient)


def test_gradients_of_light_and_normals() -> None:
    torch.manual_seed(0)
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])

    def lit(vertices: torch.Tensor, colours: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        normals = light.vertex_normals(vertices, triangles)
        return light.shade(vertices, normals, colours, light.default_light(raw))

    inputs = doubles(2, 4, 3), doubles(2, 4, 3), doubles(2, 9)
    assert torch.autograd.gradcheck(lit, inputs, fast_mode=True)


def test_rasterizer_draws_what_is_there() -> None:
    """A square of two triangles in the left half, its colour a ramp; a nearer one hides it."""
    points = torch.tensor([[[-1.0, -1.0], [0.0, -1.0], [0.0, 1.0], [-1.0, 1.0]]])
    ramp = torch.tensor([0.0, 1.0, 1.0, 0.0])[None, :, None].expand(1, 4, 3)
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    picture, coverage = rasterize(points, torch.ones(1, 4), ramp, triangles, 16)
    assert coverage[0, :, :7].min() > 0.95
    assert coverage[0, :, 9:].max() < 0.05
    columns = (torch.arange(7) + 0.5) / 8
    torch.testing.assert_close(picture[0, 2:14, :7, 0], columns.expand(12, 7), atol=0.03, rtol=0)

    twice = torch.cat([points, points], 1)
    depths = torch.tensor([[2.0] * 4 + [1.0] * 4])
    colours = torch.cat([torch.zeros(1, 4, 3), torch.ones(1, 4, 3)], 1)
    both = torch.cat([triangles, triangles + 4])
    near, _ = rasterize(twice, depths, colours, both, 16)
    assert near[0, 2:14, 1:6].min() > 0.99


def test_rasterizer_needs_few_candidates(mesh: Mesh) -> None:
    vertices = torch.from_numpy(mesh.vertices)[None]
    points, depths = camera.project(vertices, camera.default_camera(torch.zeros(1, 7)))
    triangles = torch.from_numpy(mesh.triangles)
    few = rasterize(points, depths, vertices, triangles, 32)
    all_ = rasterize(points, depths, vertices, triangles, 32, candidates=64)
    covered = few[1] > 0.5
    assert covered.float().mean() > 0.4
    assert (few[0] - all_[0]).abs().mean(-1)[covered].mean() < 0.01
    assert (few[1] - all_[1]).abs().mean() < 0.005


def test_gradients_of_the_rasterizer() -> None:
    torch.manual_seed(0)
    triangles = torch.tensor([[0, 1, 2], [1, 3, 2], [0, 3, 1]])
    points = torch.tensor(
        [[[-0.71, -0.63], [0.52, -0.81], [-0.33, 0.74], [0.88, 0.57]]], dtype=torch.float64
    ).requires_grad_()
    depths = (1 + 0.05 * torch.randn(1, 4, dtype=torch.float64)).requires_grad_()

    def draw(*mesh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rasterize(*mesh, triangles, 6)

    assert torch.autograd.gradcheck(draw, (points, depths, doubles(1, 4, 3)), fast_mode=True)


def test_crops_are_the_anchors() -> None:
    images = torch.arange(2 * 3 * 64 * 96, dtype=torch.float32).view(2, 3, 64, 96) % 255
    boxes = torch.tensor([[40.0, 32.0, 32.0, 32.0], [0.0, 0.0, 32.0, 32.0]])
    crops = anchor_crops(images, boxes, torch.tensor([1, 0]))
    expected = images[1, :, 16:48, 24:56].permute(1, 2, 0) / 255
    torch.testing.assert_close(crops[0], expected, atol=1e-3, rtol=0)
    assert (crops[1, :16] == 0).all()


def test_anchors_are_chosen_with_their_vectors_and_bounded() -> None:
    images = torch.zeros(3, 3, 64, 96)
    priors = prior_boxes(ANCHORS, 64, 96)
    features = []
    for level in ANCHORS.levels:  # each cell's vector is its centre and its picture
        rows, columns = level.grid(64, 96)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        maps = torch.stack([(x + 0.5) * level.stride, (y + 0.5) * level.stride]).expand(
            3, -1, -1, -1
        )
        owners = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, rows, columns)
        features.append(torch.cat([maps, owners], 1))
    everything = torch.arange(3 * len(priors))
    chosen = choose_anchors(ANCHORS, features, images, everything)
    assert len(chosen.vectors) == MOST
    torch.testing.assert_close(chosen.vectors[:, :2], chosen.boxes[:, :2])
    assert chosen.vectors[:, 2].long().equal(chosen.owners)
    assert set(chosen.owners.tolist()) == {0, 1, 2}
    assert (chosen.boxes[:, 2] >= SMALLEST).all()
    sizes = torch.tensor([level.sizes for level in ANCHORS.levels])
    levels = (chosen.boxes[:, 2] > 50).long()
    assert sizes[levels, chosen.slots].equal(chosen.boxes[:, 2])
    none = choose_anchors(ANCHORS, features, images, everything[:0])
    assert len(none.vectors) == len(none.boxes) == 0


def test_the_branch_learns_a_real_face(astronaut: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(astronaut.copy()).permute(2, 0, 1)[None].float()
    crop = anchor_crops(images, torch.tensor([[224.0, 116.0, 120.0, 120.0]]), torch.tensor([0]))
    branch = DenseBranch(16, 1)
    vector, slot = torch.randn(1, 16), torch.tensor([0])
    optimizer = torch.optim.Adam(branch.parameters(), 3e-3)
    curve = []
    for _ in range(40):
        loss = pixel_losses(*branch(vector, slot), crop).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    mean_colour = (crop - crop.mean((1, 2), keepdim=True)).abs().sum(-1).mean()
    assert np.mean(curve[-5:]) < 0.75 * curve[0]
    assert np.mean(curve[-5:]) < 0.8 * mean_colour


@pytest.fixture
def net() -> DetectorNet:
    """The smallest net with RetinaFace's head: two levels of convolutions."""

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv_bn(3, 8, 3, 16), conv_bn(8, 8, 3, 2)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            fine = self.first(images / 60)
            return [fine, self.second(fine)]

    torch.manual_seed(0)
    head = AnchorHead(8, ANCHORS.levels)
    context = PerLevel(torch.nn.Identity() for _ in ANCHORS.levels)
    return DetectorNet(Backbone(), torch.nn.Identity(), context, head, ANCHORS)


def batch(positives: list[int]) -> tuple[torch.Tensor, BatchTargets]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, len(prior_boxes(ANCHORS, 64, 96)), dtype=torch.int8)
    labels.view(-1)[positives] = 1
    count = len(positives)
    targets = BatchTargets(
        labels, torch.tensor(positives, dtype=torch.int64), torch.zeros(count, 4),
        torch.zeros(count, 10), torch.zeros(0, 4), torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool),
    )  # fmt: skip
    return 255 * torch.rand(2, 3, 64, 96, generator=generator), targets


def test_the_loss_is_the_papers_and_can_be_switched_off(net: DetectorNet) -> None:
    images, targets = batch([5, 49, 53, 101])
    net.eval()
    off = build_objective(net, Recipe("", supervision=(("dense", 0.0),)))
    assert not list(off.parameters())
    on = build_objective(net, Recipe(""))
    without, having = off(net, images, targets), on(net, images, targets)
    assert set(having.terms) - set(without.terms) == {"pixels"}
    assert having.total.item() == pytest.approx(
        without.total.item() + 0.01 * having.terms["pixels"].item()
    )
    (having.total - without.total).backward()
    assert net.backbone.first[0].weight.grad.abs().sum() > 0


def test_a_batch_without_faces_gives_every_parameter_a_gradient(net: DetectorNet) -> None:
    objective = build_objective(net, Recipe(""))
    losses = objective(net, *batch([]))
    losses.total.backward()
    assert losses.total.isfinite()
    assert losses.terms["pixels"] == 0
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_the_exported_graph_knows_nothing_of_the_branch(net: DetectorNet) -> None:
    pytest.importorskip("onnxscript")
    before = to_onnx(net)
    objective = build_objective(net, Recipe(""))
    objective(net.eval(), *batch([49])).total.backward()
    assert to_onnx(net) == before
    assert b"dense" not in before
    assert not [key for key in net.state_dict() if "dense" in key]
