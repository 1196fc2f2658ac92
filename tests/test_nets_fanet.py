"""FANet against its paper: agglomeration, hierarchies, anchors, and the hierarchical loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeface.anchors import level_priors, prior_boxes
from edgeface.errors import InvalidOptionError

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.backbones import Stage  # noqa: E402
from edgeface.nets.necks.agglomeration import (  # noqa: E402
    AgglomerationBlock,
    AgglomerationPyramid,
)
from edgeface.nets.presets.fanet import ANCHORS  # noqa: E402
from edgeface.training.objectives import BatchTargets, build_objective  # noqa: E402
from edgeface.training.objectives.fanet import FANetObjective  # noqa: E402
from edgeface.training.objectives.retinaface import multitask_loss  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

PRESET = "fanet_mobilenet025"
RECIPE = Recipe(PRESET, box_weight=1.0)
STAGES = [Stage(2, 4), Stage(3, 8), Stage(4, 16), Stage(5, 32)]


def set_convolution(block: torch.nn.Sequential, weight: float) -> None:
    """Every weight of a block's convolution alike, and its batch norm without effect."""
    torch.nn.init.constant_(block[0].weight, weight)
    block[1].eps = 0.0


def test_block_agglomerates_by_hand() -> None:
    """An impulse of the shallow map shows each branch; a step of the deep one the upsampling."""
    block = AgglomerationBlock(shallow=1, deep=2, width=8).eval()
    for part in (block.reduce, block.deep, *block.branches):
        set_convolution(part, 0.5)
    assert block.deep[0].weight.shape == (1, 2, 1, 1)
    assert [branch[0].weight.shape for branch in block.branches] == [
        (2, 8, 1, 1), (2, 8, 1, 3), (2, 8, 3, 1), (2, 8, 3, 3),
    ]  # fmt: skip
    set_convolution(block.smooth, 0.0)
    with torch.no_grad():
        for output, agglomerated in enumerate((0, 2, 4, 6, 8)):
            block.smooth[0].weight[output, agglomerated, 1, 1] = 1.0

    shallow = torch.zeros(1, 1, 4, 4)
    shallow[0, 0, 1, 1] = 1.0
    deep = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    with torch.no_grad():
        out = block(shallow, deep)[0]
    # Reduced to 8 channels of 0.5 at the impulse; each tap of a branch adds 8 * 0.5 * 0.5 = 2.
    expected = torch.zeros(4, 4, 4)
    expected[0, 1, 1] = 2
    expected[1, 1, 0:3] = 2
    expected[2, 0:3, 1] = 2
    expected[3, 0:3, 0:3] = 2
    torch.testing.assert_close(out[:4], expected)
    # Reduced to one channel of 0.5 * (1 + 1) = 1 and 0.5 * (3 + 1) = 2, then three quarters of the
    # own cell and a quarter of the neighbour, the border repeated.
    torch.testing.assert_close(out[4], torch.tensor([1.0, 1.25, 1.75, 2.0]).expand(4, 4))


def test_block_smooths_shallow_and_deep_together() -> None:
    block = AgglomerationBlock(shallow=1, deep=1, width=8).eval()
    for part in (block.reduce, block.deep, block.smooth, *block.branches):
        set_convolution(part, 0.25)
    assert block.smooth[0].weight.shape == (8, 9, 3, 3)
    with torch.no_grad():
        out = block(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3))[0]
    # Reduced to 0.25; a branch of t taps gives 8 * 0.25 * 0.25 * t = t / 2, on two channels.
    centre = 9 * 0.25 * (2 * (1 + 3 + 3 + 9) / 2 + 0.25)
    torch.testing.assert_close(out[:, 2, 2], torch.full((8,), centre))
    plain = AgglomerationBlock(1, 1, 8, context=False)
    assert not list(plain.branches)
    assert plain(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3)).shape == (1, 8, 6, 6)


def test_each_hierarchy_agglomerates_one_level_less() -> None:
    """The superscripts of section 3.3, started from the fourth level: 3, 3, 2, 1, 1, 1."""
    neck = AgglomerationPyramid(STAGES, width=8, hierarchy=3).eval()
    features = [
        torch.rand(1, stage.channels, 128 // stage.stride, 256 // stage.stride) for stage in STAGES
    ]
    with torch.no_grad():
        first, second, third = neck(features)
        torch.testing.assert_close(second[1], neck.hierarchies[0][1](first[1], first[2]))
        torch.testing.assert_close(third[0], neck.hierarchies[1][0](second[0], second[1]))
        torch.testing.assert_close(third[1], neck.hierarchies[1][1](second[1], second[2]))
    assert neck.changed == [3, 2]
    assert [one is two for one, two in zip(first, second, strict=True)] == [False] * 3 + [True] * 3
    assert [two is three for two, three in zip(second, third, strict=True)] == [
        *[False] * 2,
        *[True] * 4,
    ]
    for maps, channels in zip((first, second, third), neck.channels, strict=True):
        assert [level.shape[1] for level in maps] == channels
    assert neck.channels == [[2, 3, 4, 5, 16, 8], [8, 8, 8, 5, 16, 8], [8, 8, 8, 5, 16, 8]]
    assert [level.shape[2:] for level in third] == [(128 // s, 256 // s) for s in strides()]


def strides() -> list[int]:
    return [level.stride for level in ANCHORS.levels]


def test_one_square_anchor_per_cell_from_16_to_512() -> None:
    assert strides() == [4, 8, 16, 32, 64, 128]
    assert [level.sizes for level in ANCHORS.levels] == [(2.0**n,) for n in range(4, 10)]
    assert all(level.aspect_ratios == (1.0,) for level in ANCHORS.levels)
    assert len(prior_boxes(ANCHORS, 640, 640)) == 34_125


@pytest.mark.parametrize(
    "preset", [PRESET, f"{PRESET}:hierarchy=1", f"{PRESET}:hierarchy=4", "fanet_resnet18"]
)
def test_outputs_fit_the_anchors(preset: str) -> None:
    net = build(preset).eval()
    with torch.no_grad():
        outputs = net(torch.zeros(1, 3, 128, 256))
    priors = [len(level_priors(level, 128, 256)) for level in net.anchors.levels]
    assert [level.logits.shape[1] for level in outputs] == priors


def test_width_reaches_the_papers() -> None:
    neck = build("fanet_resnet18:width=256").neck
    block = neck.hierarchies[0][0]
    assert block.deep[0].out_channels == 32
    assert block.reduce[0].out_channels == block.smooth[0].out_channels == 256
    assert [layer[1][0].out_channels for layer in neck.coarser] == [512, 256]


@pytest.mark.parametrize("options", ["hierarchy=0", "hierarchy=5", "width=12", "width=0"])
def test_impossible_options_are_named(options: str) -> None:
    with pytest.raises(InvalidOptionError, match=f"got {options.partition('=')[2]}"):
        build(f"{PRESET}:{options}")


def batch_of(side: int = 128) -> tuple[torch.Tensor, BatchTargets]:
    torch.manual_seed(1)
    labels = torch.zeros(1, len(prior_boxes(ANCHORS, side, side)), dtype=torch.int8)
    labels[0, ::200] = 1
    positives = labels.flatten().nonzero().squeeze(1)
    targets = BatchTargets(
        labels,
        positives,
        torch.rand(len(positives), 4),
        torch.rand(len(positives), 10),
        torch.zeros(0, 4),
        torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )
    return torch.rand(1, 3, side, side) * 255, targets


@pytest.mark.parametrize("hierarchy", [1, 2, 3])
def test_hierarchical_loss_is_the_sum_over_the_hierarchies(hierarchy: int) -> None:
    torch.manual_seed(0)
    net = build(f"{PRESET}:hierarchy={hierarchy},width=8").eval()
    objective = build_objective(net, RECIPE)
    assert isinstance(objective, FANetObjective)
    images, targets = batch_of()
    with torch.no_grad():
        losses = objective(net, images, targets)
        hierarchies, deployed = net.training_outputs(images)
        heads = {
            (number, level): head
            for number, finest in enumerate([*objective.earlier, net.head.levels])
            for level, head in enumerate(finest)
        }
        last = len(hierarchies) - 1
        total = 0.0
        for number, maps in enumerate(hierarchies):
            outputs = []
            for level, features in enumerate(maps):
                shared = next(
                    later
                    for later in range(number, last + 1)
                    if later == last or hierarchies[later + 1][level] is not features
                )
                outputs.append(heads[shared, level](features))
            loss = multitask_loss(outputs, targets, RECIPE)
            terms = loss.terms
            total += 3 * terms["classes"] + terms["boxes"] + 0.1 * terms["landmarks"]
    assert len(hierarchies) == hierarchy
    assert losses.total.item() == pytest.approx(float(total), rel=1e-5)
    assert [len(finest) for finest in objective.earlier] == [3, 2][: hierarchy - 1]
    assert sum(name.startswith("hierarchy_") for name in losses.terms) == hierarchy - 1
    torch.testing.assert_close(deployed[0].logits, net(images)[0].logits)


def test_the_hierarchical_loss_can_be_switched_off_and_weighed() -> None:
    torch.manual_seed(0)
    net = build(f"{PRESET}:width=8").eval()
    images, targets = batch_of()

    def losses_at(strength: float) -> tuple[float, int]:
        torch.manual_seed(2)
        objective = build_objective(net, replace(RECIPE, supervision=(("hierarchical", strength),)))
        with torch.no_grad():
            total = objective(net, images, targets).total.item()
        return total, len(list(objective.parameters()))

    (off, none), (half, some), (whole, _) = (losses_at(strength) for strength in (0, 0.5, 1))
    assert none == 0 < some
    assert half - off == pytest.approx((whole - off) / 2, rel=1e-4)
    assert half > off > 0


def test_every_hierarchy_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = build(f"{PRESET}:width=8").train()
    objective = build_objective(net, RECIPE)
    images, targets = batch_of()
    objective(net, images.repeat(2, 1, 1, 1), BatchTargets(
        targets.labels.repeat(2, 1), *targets[1:]
    )).total.backward()  # fmt: skip
    for module in (net, objective):
        assert all(parameter.grad is not None for parameter in module.parameters())
