"""ONNX to a serialized engine; TensorRT-RTX does it without a GPU."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from edgeface.errors import BackendUnavailableError, EdgeFaceError, ModelIntegrityError
from edgeface.runtimes.base import INPUT, check_graph, rejected
from edgeface.runtimes.nvidia.profiles import Profile
from edgeface.runtimes.nvidia.progress import Progress, monitor
from edgeface.runtimes.nvidia.vendor import Vendor

_SIGNS_OF_FULL_MEMORY = ("outofmemory", "memoryallocation", "insufficientmemory")


@dataclass(frozen=True)
class Built:
    """A new engine.

    Attributes:
        engine: its bytes.
        timings: timings of kernels, which make the next build faster; may be empty.
    """

    engine: bytes
    timings: bytes


def build(
    vendor: Vendor,
    model: bytes,
    profile: Profile,
    *,
    exact: bool = False,
    quick: bool = False,
    timings: bytes = b"",
    for_this_device: bool = False,
) -> Built:
    """Build an engine of an ONNX graph, in the graph's own types.

    Args:
        vendor: the library.
        model: the ONNX file; fp16 and QDQ INT8 graphs give fp16 and INT8 engines.
        profile: the frames that it must take.
        exact: no TF32 in place of fp32.
        quick: take the first kernels that work.
        timings: timings that an earlier build returned.
        for_this_device: build for the GPU that is here, rather than for all that the library
            knows; TensorRT proper always does.

    Raises:
        ModelIntegrityError: the parser rejects an operator or the file, or the graph breaks the
            graph contract.
        BackendUnavailableError: the build fails, perhaps for want of memory.
    """
    builder = vendor.builder()
    network, parser = _parse(vendor, builder, model)
    config = builder.create_builder_config()
    if exact:
        config.clear_flag(vendor.api.BuilderFlag.TF32)
    if quick:
        config.builder_optimization_level = 0
    if for_this_device:
        vendor.aim_at_this_device(config)
    vendor.set_timings(config, timings)
    _add_profile(builder, config, profile)
    vendor.log.errors.clear()
    with closing(Progress(f"a {vendor.name} engine for frames of {profile}")) as progress:
        steps = config.progress_monitor = monitor(vendor.api, progress)
        try:
            engine = builder.build_serialized_network(network, config)
        except Exception as error:
            raise _failed(vendor, profile, error) from error
    del parser
    if steps.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        raise _failed(vendor, profile, None)
    return Built(bytes(engine), vendor.timings(config))


def _parse(vendor: Vendor, builder: Any, model: bytes) -> tuple[Any, Any]:
    """Return the network and its parser, which owns the weights."""
    network = vendor.network(builder)
    parser = vendor.api.OnnxParser(network, vendor.log)
    if not parser.parse(model):
        raise _unparsed(vendor, parser)
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    outputs = [network.get_output(index).name for index in range(network.num_outputs)]
    check_graph(inputs, outputs)
    return network, parser


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:
    shapes = builder.create_optimization_profile()
    shapes.set_shape(INPUT, profile.smallest, profile.usual, profile.largest)
    if config.add_optimization_profile(shapes) < 0:
        raise ModelIntegrityError(
            f"expected a model that takes frames of {profile}, but its own shape excludes them; "
            "choose an input_size that it accepts"
        )


def _unparsed(vendor: Vendor, parser: Any) -> ModelIntegrityError:
    """Build the error for a graph that the parser rejects, with the operator where it names one."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    vendor.log.errors.clear()
    for error in errors:
        if operator := error.node_operator():
            reason = " ".join(error.desc().split())
            return ModelIntegrityError(
                f"expected operators that {vendor.name} {vendor.version} supports, got "
                f"'{operator}' (node '{error.node_name()}'): {reason}; upgrade {vendor.name}, or "
                "choose the backend 'onnxruntime'"
            )
    told = errors[0].desc() if errors else "no graph"
    return rejected(vendor.name, ValueError(told))


def _failed(vendor: Vendor, profile: Profile, error: Exception | None) -> EdgeFaceError:
    said = vendor.trouble()
    reason = f"{error}; {said}" if error else said
    wanted = f"expected {vendor.name} {vendor.version} to build an engine for frames of {profile}"
    squeezed = reason.lower().replace(" ", "")
    if any(sign in squeezed for sign in _SIGNS_OF_FULL_MEMORY):
        return BackendUnavailableError(
            f"{wanted}, but memory ran out: {reason}; close other programs that use the GPU, or "
            "take a smaller input_size"
        )
    return BackendUnavailableError(
        f"{wanted}, got: {reason}; upgrade {vendor.name}, or choose the backend 'onnxruntime'"
    )
