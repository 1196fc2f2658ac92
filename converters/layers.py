"""What every convolution gives, in torch and in exported files, under the module's own name.

ONNX and OpenVINO files name their weights after torch's modules. TFLite files do not: there the
n-th convolution is the n-th that torch runs, not counting those that interpolate. A module that
runs on several levels appears once per level, with the size of its map, and with a number where it
runs on maps of one size again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeface.converters.resizable import INTERPOLATION
from edgeface.errors import ConversionError
from edgeface.runtimes import onnxruntime, openvino
from edgeface.runtimes.base import INPUT

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

Maps: TypeAlias = NDArray[np.float32]
Activations: TypeAlias = Mapping[str, Maps]
Frame: TypeAlias = NDArray[np.uint8]

WEIGHT = re.compile(r"(?:.*/)?net\.(?P<module>.+?)\.weight(?!s\.)")
ONNX_CONVOLUTIONS = ("Conv", "ConvTranspose")
OPENVINO_CONVOLUTIONS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
)
RESHAPING = ("Convert", "Reshape", "Unsqueeze")
TFLITE_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


def torch_layers(net: DetectorNet, frame: Frame) -> Activations:
    """Run the deployment form in torch; a batch norm behind a convolution belongs to it."""
    import torch
    from torch import nn

    from edgeface.nets.export import ExportGraph

    graph = ExportGraph(net)
    layers: list[tuple[str, Maps]] = []
    latest: list[torch.Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            maps = output.numpy().copy()  # activations may overwrite it in place
            if not isinstance(module, nn.BatchNorm2d):
                layers.append((name, maps))
                latest[:] = [output]
            elif latest and latest[0] is inputs[0]:
                layers[-1] = (layers[-1][0], maps)

        return keep

    for name, module in graph.net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            module.register_forward_hook(hook(name))
    with torch.inference_mode():
        graph(torch.from_numpy(frame))
    return _named(layers)


def trained_layers(net: DetectorNet, layers: Activations) -> Activations:
    """Those of a net's layers that have weights of their own, which name them in every file.

    Equal constants, as of two group norms, are one in an exported file, under either's name.
    """
    weights = net.state_dict()
    return {
        name: maps for name, maps in layers.items() if f"{name.split(' ')[0]}.weight" in weights
    }


def onnx_layers(content: bytes, frame: Frame) -> Activations:
    """Run an ONNX file, quantised or not, in ONNX Runtime with every convolution as an output."""
    import onnx

    onnxruntime.probe()
    import onnxruntime as vendor

    model = onnx.load_from_string(content)
    producers = {output: node for node in model.graph.node for output in node.output}
    layers = [
        (_module(_onnx_weight(node.input[1], producers)), node.output[0])
        for node in model.graph.node
        if node.op_type in ONNX_CONVOLUTIONS
    ]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(tensor)
        for _, tensor in layers
        if tensor not in known
    )
    options = vendor.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = vendor.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = vendor.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run([tensor for _, tensor in layers], {INPUT: frame})
    return _named([(name, maps) for (name, _), maps in zip(layers, values, strict=True)])


def openvino_layers(content: bytes, frame: Frame) -> Activations:
    """Run an ONNX file, quantised or not, in OpenVINO with every convolution as an output."""
    openvino.probe()
    import openvino as vendor

    core = vendor.Core()
    model = core.read_model(content)
    layers = []
    for node in model.get_ordered_ops():
        if node.get_type_name() in OPENVINO_CONVOLUTIONS:
            module = _module(_openvino_weight(node.input_value(1).get_node()))
            layers.append((module, _with_bias(node).output(0)))
    results = [model.add_outputs(port)[0] for _, port in layers]
    graph = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    first = len(graph.outputs) - len(results)
    values = list(graph([frame]).values())[first:]
    return _named([(name, maps) for (name, _), maps in zip(layers, values, strict=True)])


def tflite_layers(
    content: bytes, frame: Frame, names: Sequence[str]
) -> tuple[Activations, set[str]]:
    """Run a TFLite file in LiteRT and read every convolution's output.

    Args:
        content: the file.
        frame: uint8 (1, H, W, 3) BGR.
        names: the layers, in the order in which torch runs them.

    Returns:
        Float32 outputs as (1, C, H, W), dequantised; and the layers with a ReLU in them.

    Raises:
        ConversionError: the file has another number of convolutions.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    image = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image, frame.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image, frame)
    interpreter.invoke()
    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    upsampled = {
        operator["inputs"][0]: operator["outputs"][0]
        for operator in operators
        if operator["op_name"] == "DEPTH_TO_SPACE"
    }
    convolutions = []
    for position, operator in enumerate(operators):
        if operator["op_name"] not in TFLITE_CONVOLUTIONS:
            continue
        output = operator["outputs"][0]
        if not details[output]["name"].encode().endswith(INTERPOLATION):
            options = graph.operators[position].builtinOptions
            convolutions.append((int(upsampled.get(output, output)), options))
    if len(convolutions) != len(names):
        raise ConversionError(
            f"expected {len(names)} convolutions as in torch, got {len(convolutions)} in the file"
        )
    maps, clipped = {}, set()
    for name, (output, options) in zip(names, convolutions, strict=True):
        values = _dequantised(interpreter.get_tensor(output), details[output])
        maps[name] = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        if options.fusedActivationFunction == schema.ActivationFunctionType.RELU:
            clipped.add(name)
    return maps, clipped


def _dequantised(values: NDArray[Any], detail: Mapping[str, Any]) -> Maps:
    scales = detail["quantization_parameters"]["scales"]
    if not len(scales):
        return values.astype(np.float32)
    zero = detail["quantization_parameters"]["zero_points"]
    return np.asarray((values.astype(np.float32) - zero) * scales, np.float32)


def _named(layers: Sequence[tuple[str, Maps]]) -> Activations:
    counts = Counter(name for name, _ in layers)
    named: dict[str, Maps] = {}
    runs = Counter[str]()
    for name, maps in layers:
        full = name if counts[name] == 1 else f"{name} ({maps.shape[3]}x{maps.shape[2]})"
        named[f"{full} #{runs[full]}" if runs[full] else full] = maps
        runs[full] += 1
    return named


def _module(weight: str) -> str:
    match = WEIGHT.match(weight)
    return match["module"] if match else weight


def _onnx_weight(tensor: str, producers: Mapping[str, Any]) -> str:
    while tensor in producers:
        tensor = producers[tensor].input[0]
    return tensor


def _openvino_weight(node: Any) -> str:
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def _with_bias(node: Any) -> Any:
    """The addition of a bias right behind a convolution, or the convolution itself."""
    for target in node.output(0).get_target_inputs():
        add = target.get_node()
        if add.get_type_name() == "Add" and _is_constant(add.input_value(1).get_node()):
            return add
    return node


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in RESHAPING:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
