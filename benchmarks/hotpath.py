"""Where a frame's time goes, and what changes of the graph would bring, as Markdown tables.

    python benchmarks/hotpath.py [--rounds 100] > hotpath.md

One thread, 640 x 480, OpenVINO and ONNX Runtime. What is compared takes turns; times are the CPU's,
of all the process's threads, which other work on the machine disturbs less. Needs the extras
"openvino" and "convert".
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeface.bench.markdown import table
from edgeface.bench.timing import Times, interleave
from edgeface.bundle import Bundle, load_bundle
from edgeface.hardware import host
from edgeface.nms import nms
from edgeface.postprocess import postprocess
from edgeface.preprocess import Letterbox
from edgeface.runtimes.openvino_graph import take_camera_bytes

WIDTH, HEIGHT = 640, 480
INPUT = "image"
SHRUNK = (256, 320)
FACE = 16.0
CROWDS = ((0, 1), (1, 10), (50, 10), (500, 4), (500, 9))
# OpenVINO's own timers are the wall's: of each part, the percentile that others disturb little.
CALM = 10
NETWORK = ("backbone", "neck", "context", "head")

Calls = Mapping[str, Callable[[], object]]
Run = Callable[[], object]


def compare(calls: Calls, rounds: int) -> Iterator[list[str]]:
    """A row for each call: its name, CPU milliseconds, and these over the first call's."""
    turns = list(interleave(calls, rounds))
    times = {name: Times.of([turn[name] for turn in turns]).cpu for name in calls}
    first = next(iter(times.values()))
    for name, spent in times.items():
        yield [name, f"{spent:.3f}", f"{spent / first:.2f}"]


def artifact(bundle: Bundle, format: str, precision: str) -> bytes:
    """The bytes of an artifact that the bundle has."""
    found = bundle.find(format, precision)
    assert found is not None
    return bundle.open(found)


def on_openvino(
    data: bytes, hint: str = "f32", *, rewritten: bool = True, rows: int = HEIGHT, finest: int = 0
) -> tuple[Any, Any]:
    """A compiled graph for a frame of 4:3, of the levels from a stride on, and its request."""
    core = openvino.Core()
    model = core.read_model(data)
    shape = [1, rows, WIDTH if rows == HEIGHT else SHRUNK[1], 3]
    model.reshape(shape)
    left = [port for port in model.outputs if int(port.any_name.split("_")[1]) >= finest]
    model = openvino.Model([port.get_node() for port in left], model.get_parameters())
    if rewritten:
        take_camera_bytes(openvino, model)
    options = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(model, "CPU", options | {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    request.set_input_tensor(
        openvino.Tensor(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    )
    return compiled, request


def openvino_call(data: bytes, hint: str = "f32", **options: Any) -> Run:
    """Run a graph on OpenVINO."""
    return on_openvino(data, hint, **options)[1].infer


def onnxruntime_call(data: bytes) -> Run:
    """Run a graph on ONNX Runtime."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    return lambda: session.run(None, {INPUT: frame})


def parts(data: bytes, rounds: int) -> dict[str, float]:
    """Milliseconds of each part of the network as OpenVINO executes it, in calm runs."""
    model = openvino.Core().read_model(data)
    owner = {}
    for node in model.get_ops():
        if "Convolution" in node.get_type_name():
            weights = node.input_value(1).get_node()
            while weights.get_input_size():
                weights = weights.input_value(0).get_node()
            owner[node.friendly_name] = weights.friendly_name.split("net.")[1].split(".")[0]
    _, request = on_openvino(data)
    runs = []
    for _ in range(rounds):
        request.infer()
        spent: Counter[str] = Counter()
        for step in request.get_profiling_info():
            name = owner.get(step.node_name, "the rest")
            spent[name] += step.real_time.total_seconds() * 1e3
        runs.append(spent)
    names = (*NETWORK, "the rest")
    return {name: float(np.percentile([run[name] for run in runs], CALM)) for name in names}


def merged(data: bytes, kernel: int) -> bytes:
    """A graph whose convolutions of that kernel that read the same map are one, then split."""
    model = onnx.load_from_string(data)
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and weights[node.input[1]].shape[-1] == kernel:
            options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if options.get("group", 1) == 1:
                key = node.input[0], *options.get("strides", ()), *options.get("pads", ())
                alike.setdefault(key, []).append(node)
    for number, nodes in enumerate(group for group in alike.values() if len(group) > 1):
        name, place = f"merged_{number}", list(model.graph.node).index(nodes[0])
        for port, kind in ((1, "weight"), (2, "bias")):
            together = np.concatenate([weights[node.input[port]] for node in nodes])
            model.graph.initializer.append(numpy_helper.from_array(together, f"{name}.{kind}"))
        counts = np.array([len(weights[node.input[1]]) for node in nodes])
        model.graph.initializer.append(numpy_helper.from_array(counts, f"{name}.counts"))
        one = helper.make_node(
            "Conv", [nodes[0].input[0], f"{name}.weight", f"{name}.bias"], [name]
        )
        one.attribute.extend(nodes[0].attribute)
        several = [node.output[0] for node in nodes]
        split = helper.make_node("Split", [name, f"{name}.counts"], several, axis=1)
        for node in nodes:
            model.graph.node.remove(node)
        model.graph.node.insert(place, one)
        model.graph.node.insert(place + 1, split)
    return bytes(model.SerializeToString())


def with_relu(data: bytes) -> bytes:
    """A graph with ReLU where it has leaky ReLU: its time counts, not its faces."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.op_type = "Relu"
            del node.attribute[:]
    return bytes(model.SerializeToString())


def crowd(bundle: Bundle, faces: int, each: int) -> dict[str, NDArray[np.float32]]:
    """Outputs for faces in rows and columns, found by a number of anchors around them each."""
    rng = np.random.default_rng(0)
    outputs = {}
    for level in bundle.anchors.levels:
        rows, columns = level.grid(HEIGHT, WIDTH)
        count = rows * columns * level.per_cell
        outputs[f"logit_{level.stride}"] = np.full((1, count, 1), -9, np.float32)
        outputs[f"delta_{level.stride}"] = np.zeros((1, count, 4), np.float32)
        outputs[f"landmark_{level.stride}"] = np.zeros((1, count, 10), np.float32)
    finest = bundle.anchors.levels[0]
    rows, columns = finest.grid(HEIGHT, WIDTH)
    around = [(row, column) for row in (0, 1, -1) for column in (0, 1, -1)] * 2
    places = [(row, column) for row in range(2, rows - 1, 3) for column in range(2, columns - 1, 3)]
    for row, column in places[:faces]:
        for number, (down, right) in enumerate(around[:each]):
            cell = (row + down) * columns + column + right
            anchor = cell * finest.per_cell + number // 9
            size = finest.sizes[number // 9]
            shift = np.array([right, down]) * finest.stride / (0.1 * size)
            deltas = [*-shift + rng.normal(0, 0.5, 2), *5 * np.log([FACE / size] * 2)]
            outputs[f"logit_{finest.stride}"][0, anchor] = rng.uniform(0.1, 3)
            outputs[f"delta_{finest.stride}"][0, anchor] = deltas + rng.normal(0, 0.3, 4)
    return outputs


def opencv_alone(boxes: Any, scores: Any, threshold: float) -> Any:
    """NMS by OpenCV of all boxes at once."""
    rectangles = boxes.astype(np.float64)
    rectangles[:, 2:] -= rectangles[:, :2]
    return cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, threshold)


def crowd_rows(bundle: Bundle, rounds: int) -> Iterator[list[str]]:
    """Postprocessing of a few faces and of many, and NMS alone in both ways."""
    placed = Letterbox(1.0, 1.0, WIDTH, HEIGHT, WIDTH, HEIGHT)
    for faces, each in CROWDS:
        outputs = crowd(bundle, faces, each)

        def whole(overlap: float = 0.4, outputs: Any = outputs) -> Any:
            return postprocess(
                outputs,
                bundle.anchors,
                placed,
                score_threshold=0.5,
                nms_threshold=overlap,
                max_faces=None,
            )

        every = whole(1.0)
        calls: dict[str, Run] = {
            "all": whole,
            "nms": lambda b=every.boxes, s=every.scores: nms(b, s, 0.4),
            "alone": lambda b=every.boxes, s=every.scores: opencv_alone(b, s, 0.4),
        }
        turns = list(interleave(calls, rounds))
        spent = [f"{Times.of([turn[name] for turn in turns]).cpu:.3f}" for name in calls]
        yield [str(faces), str(len(every)), str(len(whole())), *spent]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--rounds", type=int, default=100, help="timed turns of each")
    args = parser.parse_args()
    bundle, rounds = load_bundle(args.model), args.rounds
    fp32 = artifact(bundle, "onnx", "fp32")
    int8 = artifact(bundle, "openvino", "int8")
    header = ["", "CPU ms", "of the first"]

    def show(title: str, head: list[str], rows: Iterator[list[str]] | list[list[str]]) -> None:
        print(f"{title}\n\n{table(head, list(rows))}\n", flush=True)

    print(f"{host().cpu}, {WIDTH} x {HEIGHT}, one thread, {rounds} rounds in turns.\n")
    spent = parts(int8, rounds)
    rows = [[name, f"{ms:.2f}", f"{ms / sum(spent.values()):.0%}"] for name, ms in spent.items()]
    show("The int8 network on OpenVINO, part by part:", ["", "ms", "share"], rows)
    for title, data, hint in (("int8", int8, "f32"), ("fp32", fp32, "f32"), ("bf16", fp32, "bf16")):
        calls = {
            "as stored": openvino_call(data, hint, rewritten=False),
            "taking the camera's bytes": openvino_call(data, hint),
        }
        show(f"The graph on OpenVINO, {title}:", header, compare(calls, rounds))
    calls = {
        "three levels": openvino_call(int8),
        "without the finest level": openvino_call(int8, finest=16),
        "three levels, half the size": openvino_call(int8, rows=SHRUNK[0]),
    }
    show(
        "Levels left out against a smaller frame, int8 on OpenVINO:", header, compare(calls, rounds)
    )
    variants = {
        "as exported": fp32,
        "context branches that share a map merged": merged(fp32, 3),
        "heads of a level merged": merged(fp32, 1),
        "ReLU for leaky ReLU": with_relu(fp32),
    }
    for title, make in (
        ("ONNX Runtime fp32", onnxruntime_call),
        ("OpenVINO fp32", openvino_call),
        ("OpenVINO bf16", lambda data: openvino_call(data, "bf16")),
    ):
        calls = {name: make(data) for name, data in variants.items()}
        show(f"Other graphs, {title}:", header, compare(calls, rounds))
    head = ["faces", "boxes above 0.5", "faces found", "postprocess ms", "NMS ms", "OpenCV's alone"]
    show("Postprocessing:", head, crowd_rows(bundle, rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
