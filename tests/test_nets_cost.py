"""GMAC and parameters against counts by hand, and the table of presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.cli.main import main
from edgeface.errors import InvalidOptionError
from edgeface.nets import DetectorNet, build, presets
from edgeface.nets.cost import cost
from edgeface.nets.deformable import DeformableConv2d


class Parts(nn.Module):
    """One of each kind of layer that costs something, on a picture of 32 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stride_two = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.transposed = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.deformable = DeformableConv2d(8, 6)
        self.linear = nn.Linear(6, 10)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.depthwise(self.stride_two(images)))
        self.transposed(features)
        out: torch.Tensor = self.linear(self.deformable(features).permute(0, 2, 3, 1))
        return out


# Cells of the halved map: 16 x 8 = 128; of the whole: 32 x 16 = 512.
HAND_COUNTED = (
    128 * 8 * 3 * 9  # strided: outputs times what each sums up
    + 128 * 8 * 9  # depthwise: one input channel for each output
    + 128 * 8 * 4 * 4  # transposed: every input reaches 2 x 2 outputs of 4 channels
    + 128 * 27 * 8 * 9  # deformable: 18 offsets and 9 modulations
    + 128 * 6 * 8 * 9  # and the kernel itself
    + 128 * 6 * 10  # linear
)


def test_cost_equals_the_count_by_hand() -> None:
    identity = nn.Identity()
    anchors = AnchorSpec((AnchorLevel(16, (16.0,)),))
    net = DetectorNet(Parts(), identity, identity, identity, anchors)
    counted = cost(net, 30, 9)
    assert (counted.width, counted.height) == (32, 16)
    assert counted.macs == HAND_COUNTED
    assert counted.gmac == HAND_COUNTED / 1e9
    by_hand = (3 * 9 * 8 + 8) + 8 * 9 + (8 * 4 * 4 + 4) + (8 * 9 * 27 + 27) + 8 * 9 * 6 + 70 + 16
    assert counted.parameters == by_hand
    assert next(net.parameters()).device.type == "cpu"


def test_the_light_model_costs_what_its_layers_cost() -> None:
    """Three quarters of a GMAC at 640 x 480, in proportion to the pixels."""
    net = build("retinaface_mobilenet025")
    assert cost(net).gmac == pytest.approx(0.736, abs=0.001)
    assert cost(net, 320, 240).macs * 4 == pytest.approx(cost(net).macs, rel=0.1)


def test_every_preset_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json", str(tmp_path / "presets.json")]) == 0
    records = json.loads((tmp_path / "presets.json").read_text())
    assert [record["preset"] for record in records] == presets()
    table = capsys.readouterr().out.splitlines()[2:]
    assert len(table) == len(records)
    shipped = {record["preset"]: record["weights"] for record in records if record["weights"]}
    assert shipped["retinaface_mobilenet025"] == ["retinaface_mobilenet025"]
    for record, row in zip(records, table, strict=True):
        assert row.startswith(f"| {record['preset']} | {record['parts'][0]}")
        assert record["parts"][0] in (
            "MobileNet025", "DirectMobileNet025", "FineMobileNet025", "ResNet18", "NewResNet18",
        )  # fmt: skip
        assert record["gmac"] > 0.1
        assert record["parameters"] > 1e5
        assert record["summary"].endswith(".")


def test_a_preset_with_options_is_costed_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "retinaface_mobilenet025:width=16"]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| retinaface_mobilenet025:width=16 | ")
    assert "width=16, " in row
    assert row.endswith("| – |")
    assert main(["presets", "resnet"]) == 1
    assert "expected a preset of" in capsys.readouterr().err
    with pytest.raises(InvalidOptionError):
        build("resnet")
