"""From a quantiser to a bundle: judged, mended by layers in float, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.bundle import load_bundle
from edgeface.calibration.accuracy import EvaluationData, load_evaluation_data
from edgeface.calibration.publish import Judge, publish
from edgeface.calibration.trial import Geometry, Trial
from edgeface.errors import AccuracyError

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

MODEL = "retinaface_mobilenet025"
LAYERS = ("backbone.stage1.0.0", "neck.lateral.1.0", "head.levels.1.landmarks")
RUINED = LAYERS[-1]


def fp32() -> bytes:
    bundle = load_bundle(MODEL)
    artifact = bundle.find("onnx", "fp32")
    assert artifact is not None
    return bundle.open(artifact)


def geometry() -> Geometry:
    bundle = load_bundle(MODEL)
    return Geometry(bundle.anchors, bundle.pad_value)


def quantiser(noise: dict[str, float]) -> Callable[[frozenset[str]], bytes]:
    """Stands in for a quantiser: adds noise to the weights of layers that are not kept."""

    def quantise(keep_float: frozenset[str]) -> bytes:
        model = onnx.load_from_string(fp32())
        rng = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            layer = tensor.name.removeprefix("net.").removesuffix(".weight")
            if layer in noise and layer not in keep_float:
                weights = onnx.numpy_helper.to_array(tensor)
                noisy = weights * (1 + noise[layer] * rng.normal(size=weights.shape))
                array = noisy.astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return bytes(model.SerializeToString())

    return quantise


@pytest.fixture
def data(evaluation_folders: list[Path]) -> EvaluationData:
    return load_evaluation_data(evaluation_folders)


def test_a_trial_finds_what_the_detector_finds(astronaut: NDArray[np.uint8]) -> None:
    with Detector("onnxruntime", precision="fp32", score_threshold=0.02, max_faces=750) as detector:
        expected = detector(astronaut)
    with Trial(fp32(), "onnxruntime", geometry()) as trial:
        faces = trial(astronaut)
    assert len(faces) == len(expected) > 0
    np.testing.assert_allclose(faces.boxes, expected.boxes, atol=1e-3)


def test_what_is_accurate_is_published_as_it_is(data: EvaluationData) -> None:
    quantise = quantiser(dict.fromkeys(LAYERS, 1e-4))
    published = publish("onnx", fp32(), LAYERS, quantise, Judge(geometry(), data))
    assert published.content == quantise(frozenset())
    assert published.fallback is None
    assert not published.accepted_drop
    assert published.costs == ()
    assert published.to_dict()["average_precision_of_fp32"] == 1
    assert "accepted_accuracy_drop" not in published.to_dict()


def test_the_layer_that_ruins_the_landmarks_stays_in_float(data: EvaluationData) -> None:
    quantise = quantiser({**dict.fromkeys(LAYERS, 1e-4), RUINED: 1.0})
    published = publish("onnx", fp32(), LAYERS, quantise, Judge(geometry(), data))
    assert published.content == quantise(frozenset({RUINED}))
    assert published.fallback is not None
    assert published.fallback.kept_float == (RUINED,)
    assert published.fallback.milliseconds > 0
    assert published.to_dict()["kept_float"] == [RUINED]
    worst = min(published.costs, key=lambda cost: cost.worst)
    assert (worst.layer, worst.ap) == (RUINED, 0.0)
    assert worst.landmark < 20 < min(worst.logit, worst.delta)


def test_what_half_in_float_cannot_mend_is_refused(data: EvaluationData) -> None:
    quantise = quantiser(dict.fromkeys(LAYERS, 1.0))
    with pytest.raises(AccuracyError, match="half of its layers in float"):
        publish("onnx", fp32(), LAYERS, quantise, Judge(geometry(), data))


def test_an_accepted_drop_is_marked(data: EvaluationData) -> None:
    judge = Judge(geometry(), data)
    quantisers = (quantiser({RUINED: noise}) for noise in np.geomspace(0.005, 0.5, 40))
    quantise = next(
        one
        for one in quantisers
        if 1.05 < judge.verdict("onnx", fp32(), one(frozenset())).landmark_ratio < 1.25
    )
    published = publish("onnx", fp32(), LAYERS, quantise, judge, accept_drop=True)
    assert published.content == quantise(frozenset())
    assert published.to_dict()["accepted_accuracy_drop"] is True


def test_explaining_measures_every_layer(data: EvaluationData) -> None:
    seen: list[str] = []

    def track(items: Any, description: str) -> Any:
        seen.append(description)
        return items

    judge = Judge(geometry(), data, track)
    quantise = quantiser(dict.fromkeys(LAYERS, 1e-4))
    published = publish("onnx", fp32(), LAYERS, quantise, judge, explain=True)
    assert [cost.layer for cost in published.costs] == list(LAYERS)
    assert all(np.isfinite(cost.worst) for cost in published.costs)
    assert {"judging fp32", "judging int8 for onnx", "layers for onnx"} <= set(seen)
