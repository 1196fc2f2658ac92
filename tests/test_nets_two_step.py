"""RefineFace's and ISRN's nets: geometry, modules, and the folding of two steps into one."""

from __future__ import annotations

import numpy as np
import pytest

from edgeface.anchors import prior_boxes
from edgeface.errors import CheckpointError
from edgeface.postprocess import decode

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.context.excitation import SqueezeExcitation  # noqa: E402
from edgeface.nets.context.receptive_field import ReceptiveFieldEnhancement  # noqa: E402
from edgeface.nets.export import ExportGraph, output_names  # noqa: E402
from edgeface.nets.group_norm import DeployedGroupNorm  # noqa: E402
from edgeface.nets.heads.two_step import REJECTED_LOGIT, TwoStepHead  # noqa: E402
from edgeface.nets.necks.two_step import TwoStepLevels  # noqa: E402
from edgeface.nets.presets.refineface import TWO_STEP_ANCHORS  # noqa: E402
from edgeface.nets.weights import load_weights  # noqa: E402

SMALL = "refineface_mobilenet025:width=16"


def boxes_of(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    return decode(deltas, anchors, TWO_STEP_ANCHORS.variances).reshape(-1, 4)


def anchor_counts(side: int) -> list[int]:
    return [rows * columns * level.per_cell for level, rows, columns in grids(side)]


def grids(side: int) -> list[tuple]:
    return [(level, *level.grid(side, side)) for level in TWO_STEP_ANCHORS.levels]


def random_levels(width: int = 8) -> TwoStepLevels:
    generator = torch.Generator().manual_seed(0)
    sides = [32, 16, 8, 4, 2, 1]
    maps = [torch.randn(2, width, side, side, generator=generator) for side in sides]
    firsts = [torch.randn(2, width, side, side, generator=generator) for side in sides]
    return TwoStepLevels(firsts[:3], firsts[3:], maps)


def small_head(**options: bool) -> TwoStepHead:
    torch.manual_seed(1)
    chosen = {"refined_twice": True, "rfe": True, "separable": False, **options}
    head = TwoStepHead(8, TWO_STEP_ANCHORS, **chosen)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.3)
    return head.eval()


def test_anchors_follow_the_stated_geometry_and_not_the_papers_counts() -> None:
    counts = anchor_counts(1024)
    assert sum(counts) == 174_720
    assert sum(counts[:3]) / sum(counts) == pytest.approx(0.985, abs=5e-4)
    sizes = [size for level in TWO_STEP_ANCHORS.levels for size in level.sizes]
    assert (min(sizes), round(max(sizes))) == (8, 362)
    boxes = prior_boxes(TWO_STEP_ANCHORS, 256, 256)
    np.testing.assert_allclose(boxes[:, 3] / boxes[:, 2], 1.25, rtol=1e-6)


def test_receptive_field_enhancement_has_four_rectangular_branches_and_a_shortcut() -> None:
    module = ReceptiveFieldEnhancement(16)
    kernels = [branch[2].kernel_size for branch in module.branches]
    assert sorted(kernels) == [(1, 3), (1, 5), (3, 1), (5, 1)]
    assert all(branch[0].out_channels == 4 for branch in module.branches)
    features = torch.randn(2, 16, 5, 9)
    assert module(features).shape == features.shape
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    torch.testing.assert_close(module(features), features)


def test_one_cell_reaches_as_far_as_the_longest_branches_and_no_farther() -> None:
    module = ReceptiveFieldEnhancement(8)
    features = torch.rand(1, 8, 11, 11, requires_grad=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.1)
    module(features)[0, :, 5, 5].sum().backward()
    seen = features.grad[0].abs().sum(0) > 0
    expected = torch.zeros(11, 11, dtype=torch.bool)
    expected[5, 3:8] = expected[3:8, 5] = True
    assert torch.equal(seen, expected)


def test_the_folded_delta_decodes_to_what_two_stages_decode_to() -> None:
    head, levels = small_head(), random_levels()
    with torch.no_grad():
        folded = head(levels)
        steps = head.training_outputs(levels)
    priors = prior_boxes(TWO_STEP_ANCHORS, 128, 128)
    place = 0
    for one, two in zip(folded, steps, strict=True):
        count = one.deltas.shape[1]
        regular = priors[place : place + count]
        place += count
        assert (two.first_deltas is not None) == (place > 2688)
        anchors = regular
        if two.first_deltas is not None:
            first = boxes_of(two.first_deltas[1].numpy(), regular)
            centres, sizes = (first[:, :2] + first[:, 2:]) / 2, first[:, 2:] - first[:, :2]
            anchors = np.concatenate([centres, sizes], 1)
            assert np.abs(two.first_deltas[1].numpy()).max() > 0.1
        expected = boxes_of(two.deltas[1].numpy(), anchors)
        got = boxes_of(one.deltas[1].numpy(), regular)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * regular.max())


def test_a_rejected_anchor_keeps_the_lower_logit_and_the_others_the_second() -> None:
    head, levels = small_head(), random_levels()
    with torch.no_grad():
        head.classes[-1].bias.fill_(REJECTED_LOGIT)
        folded, steps = head(levels), head.training_outputs(levels)
    for index, (one, two) in enumerate(zip(folded, steps, strict=True)):
        if index >= 3:
            assert two.first_logits is None
            torch.testing.assert_close(one.logits, two.logits)
            continue
        rejected = two.first_logits < REJECTED_LOGIT
        assert 0 < rejected.float().mean() < 1
        lower = torch.minimum(two.first_logits, two.logits)
        assert torch.equal(one.logits[rejected], lower[rejected])
        assert torch.equal(one.logits[~rejected], two.logits[~rejected])
        assert (one.logits[rejected].sigmoid() < 0.01).all()


def test_both_steps_share_the_class_subnet_and_nothing_else() -> None:
    head, levels = small_head(), random_levels()
    same = levels._replace(classified=levels.levels[:3])
    for level in head.training_outputs(same)[:3]:
        torch.testing.assert_close(level.first_logits, level.logits)
    names = {name.split(".")[0] for name, _ in head.named_parameters()}
    assert names == {
        "class_subnet", "classes", "box_subnet", "boxes", "landmarks", "first_boxes"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "classified", "refined"),
    [("", True, True), (",stc=off", False, True), (",str=off", True, False),
     (",stc=off,str=off,rfe=off", False, False)],
)  # fmt: skip
def test_switches_take_out_a_step_and_all_its_weights(
    options: str, classified: bool, refined: bool
) -> None:
    net = build(SMALL + options).eval()
    with torch.no_grad():
        head = net.training_outputs(torch.rand(1, 3, 128, 256) * 255).head
    assert [level.first_logits is not None for level in head] == [classified] * 3 + [False] * 3
    assert [level.first_deltas is not None for level in head] == [False] * 3 + [refined] * 3
    names = [name for name, _ in net.named_parameters()]
    assert any("first_coarser" in name for name in names) == refined
    assert any("first_boxes" in name for name in names) == refined
    assert any("branches" in name for name in names) == ("rfe=off" not in options)


@pytest.mark.parametrize("preset", [SMALL, "isrn_mobilenet025:width=16,se=on"])
def test_the_deployed_graph_keeps_the_contract_and_the_cells(preset: str) -> None:
    net = build(preset)
    images = torch.randint(0, 256, (1, 128, 256, 3), dtype=torch.uint8)
    with torch.no_grad():
        outputs = ExportGraph(net)(images)
    names = output_names(net.anchors)
    assert names[0] == "logit_4" and names[-1] == "landmark_128"
    for number, level in enumerate(net.anchors.levels):
        rows, columns = level.grid(128, 256)
        shapes = [tuple(out.shape) for out in outputs[3 * number : 3 * number + 3]]
        assert shapes == [(1, rows * columns * 2, values) for values in (1, 4, 10)]


@pytest.mark.parametrize(
    "preset", ["refineface_mobilenet025:width=16,stc=off", "isrn_mobilenet025:width=16,se=on"]
)
def test_weights_load_under_the_specification_that_they_were_made_with(preset: str) -> None:
    torch.manual_seed(0)
    net = build(preset).eval()
    again = load_weights(net.preset, net.state_dict())
    assert again.preset == preset
    images = torch.rand(1, 3, 128, 256) * 255
    with torch.no_grad():
        for one, other in zip(net(images), again(images), strict=True):
            assert torch.equal(one.deltas, other.deltas)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(preset.partition(":")[0] + ":width=16,rfe=off", net.state_dict())


def test_constants_are_no_weights() -> None:
    net = build("isrn_mobilenet025:width=16")
    assert not any("sizes_to_centres" in name for name in net.state_dict())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize(("groups", "channels"), [(16, 16), (16, 48), (8, 8)])
def test_group_norm_deployed_equals_the_one_that_trains(groups: int, channels: int) -> None:
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(groups, channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    features = torch.randn(2, channels, 9, 13) * 3 + 5
    deployed = DeployedGroupNorm(norm)
    torch.testing.assert_close(deployed(features), norm(features), rtol=1e-4, atol=1e-5)


def test_squeeze_excitation_weighs_channels_alone() -> None:
    module = SqueezeExcitation(32)
    features = torch.rand(1, 32, 4, 6) + 0.5
    ratio = module(features) / features
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ratio.min() > 0 and ratio.max() < 1


def test_new_resnet18_keeps_the_size_first_and_reaches_the_same_strides() -> None:
    net = build("isrn_resnet18:width=16").eval()
    stem = net.backbone.stem
    assert (stem[0].kernel_size, stem[0].stride, stem[0].out_channels) == ((3, 3), (1, 1), 16)
    with torch.no_grad():
        maps = net.backbone(torch.rand(1, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)
    ]  # fmt: skip
    norms = [module for module in net.backbone.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {16}
