"""An estimate, not a measurement, of a frame's time on ARM boards, as Markdown tables.

    python benchmarks/boards.py [--model NAME_OR_DIR] [--width 640 --height 480]

Counted from the model's TFLite files: multiply-accumulates (MAC) and bytes of every operator. A
convolution runs on the instruction that XNNPACK picks for the core: FMLA (4 MAC) in fp32; in int8
SDOT (16 MAC) where the core has it, else SMLAL of 16-bit numbers (4). A depthwise convolution has
no dot product, but SMLAL of 8-bit numbers (8). ``tests/arm`` sees these instructions in what the
emulator translates. Everything else moves its bytes, 16 in a cycle.

- ``bound``: every vector unit multiplies in every cycle.
- ``estimate`` in fp32: as busy as RetinaFace's authors kept theirs, 61.2 ms for 640 x 480 on two
  Cortex-A72 of an RK3399 (table 5), with a net of 0.73 GMAC
  (``edgeface presets retinaface_mobilenet025:stem=7x7``).
- ``estimate`` in int8: as much faster than fp32 as LiteRT is here, on this x86, measured now. Only
  for cores with a dot product, which this CPU should have as well (VNNI).

How near a board comes, with its caches, memory and heat, nobody knows before it is measured.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeface.bundle import load_bundle

CONVOLUTION, DEPTHWISE, MOVEMENT = "convolution", "depthwise convolution", "everything else"
PAPER_MS, PAPER_MAC = 61.2, 0.73e9
VECTOR_BYTES = 16
ROUNDS = 40
KERNELS = {
    (CONVOLUTION, False): "f32 GEMM and IGEMM",
    (CONVOLUTION, True): "qs8 GEMM and IGEMM, weights per channel",
    (DEPTHWISE, False): "f32 DWCONV",
    (DEPTHWISE, True): "qs8 DWCONV, weights per channel",
}


@dataclass(frozen=True)
class Operator:
    """An operator of a TFLite graph at one frame size.

    Attributes:
        kind: CONVOLUTION, DEPTHWISE or MOVEMENT.
        macs: multiply-accumulates.
        bytes: read and written: inputs, weights and outputs, each once.
        is_int8: it multiplies 8-bit numbers; an int8 file keeps some layers in float.
    """

    kind: str
    macs: int
    bytes: int
    is_int8: bool = False


@dataclass(frozen=True)
class Board:
    """A board's CPU: clock and cores by its maker's data sheet.

    Attributes:
        name: of the board.
        cores: the big ones, of which edgeface uses at most four.
        core: their name.
        ghz: their clock.
        units: 128-bit multiplications in a cycle: an assumption, 2 from Cortex-A76 on.
        dot_product: the core has SDOT.
    """

    name: str
    cores: int
    core: str
    ghz: float
    units: int
    dot_product: bool


RK3399 = Board("RK3399", 2, "Cortex-A72", 1.8, 1, False)
BOARDS = (
    Board("Raspberry Pi 3 B+", 4, "Cortex-A53", 1.4, 1, False),
    Board("Raspberry Pi 4", 4, "Cortex-A72", 1.5, 1, False),
    Board("Raspberry Pi 5", 4, "Cortex-A76", 2.4, 2, True),
    RK3399,
    Board("RK3588", 4, "Cortex-A76", 2.4, 2, True),
    Board("Jetson Orin Nano, CPU only", 4, "Cortex-A78AE", 1.5, 2, True),
)


def read_operators(model: bytes, width: int, height: int) -> list[Operator]:
    """Read the operators of a TFLite file for frames of that size."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter: Any = Interpreter(model_content=model, experimental_op_resolver_type=plain)
    interpreter.resize_tensor_input(
        interpreter.get_input_details()[0]["index"], [1, height, width, 3]
    )
    interpreter.allocate_tensors()
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    found = []
    for one in interpreter._get_ops_details():
        inputs = [tensors[index] for index in one["inputs"] if index in tensors]
        outputs = [tensors[index] for index in one["outputs"] if index in tensors]
        if one["op_name"] != "RESHAPE":
            found.append(_operator(one["op_name"], inputs, outputs))
    return found


def _operator(name: str, inputs: list[Any], outputs: list[Any]) -> Operator:
    moved = sum(int(np.prod(one["shape"])) * np.dtype(one["dtype"]).itemsize for one in inputs)
    moved += sum(int(np.prod(one["shape"])) * np.dtype(one["dtype"]).itemsize for one in outputs)
    is_int8 = all(one["dtype"] == np.int8 for one in inputs[:2])
    pixels = int(np.prod(outputs[0]["shape"]))
    if name == "CONV_2D":
        macs = pixels * int(np.prod(inputs[1]["shape"][1:]))
        return Operator(CONVOLUTION, macs, moved, is_int8)
    if name == "DEPTHWISE_CONV_2D":
        macs = pixels * int(np.prod(inputs[1]["shape"][1:3]))
        return Operator(DEPTHWISE, macs, moved, is_int8)
    return Operator(MOVEMENT, 0, moved, is_int8)


def instruction(kind: str, is_int8: bool, dot_product: bool) -> tuple[str, int]:
    """Name of the instruction that an operator runs on, and its MAC."""
    if not is_int8:
        return "FMLA", 4
    if kind == DEPTHWISE:
        return "SMLAL", 8
    return ("SDOT", 16) if dot_product else ("SMLAL", 4)


def bound(operators: Iterable[Operator], board: Board) -> float:
    """Milliseconds of a frame where every vector unit is always busy."""
    cycles = 0.0
    for one in operators:
        rate = instruction(one.kind, one.is_int8, board.dot_product)[1] * board.units
        cycles += one.bytes / VECTOR_BYTES if one.kind == MOVEMENT else one.macs / rate
    return cycles / (board.cores * board.ghz * 1e6)


def paper_efficiency(operators: list[Operator]) -> float:
    """How busy the paper's net kept the vector units of its RK3399."""
    scale = PAPER_MAC / sum(one.macs for one in operators)
    return scale * bound(operators, RK3399) / PAPER_MS


def measure_int8_gain(model: str, width: int, height: int) -> float:
    """How many times faster than fp32 LiteRT runs int8 on this machine, one thread each."""
    from edgeface import Detector

    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    detectors = {
        one: Detector("tflite", model=model, precision=one, input_size=(width, height), threads=1)
        for one in ("fp32", "int8")
    }
    times: dict[str, list[float]] = {one: [] for one in detectors}
    for _ in range(ROUNDS):
        for precision, detector in detectors.items():
            detector(image)
            times[precision].append(detector.profile["infer"])
    return statistics.median(times["fp32"]) / statistics.median(times["int8"])


def work_table(operators: dict[str, list[Operator]]) -> str:
    """What the net does, by kind of operator."""
    lines = [
        "| file | operators | count | MMAC | MB moved | XNNPACK kernel | instruction |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = [(kind, is_int8) for kind in (CONVOLUTION, DEPTHWISE) for is_int8 in (False, True)]
    for precision, found in operators.items():
        for kind, is_int8 in (*kinds, (MOVEMENT, None)):
            some = [one for one in found if one.kind == kind and is_int8 in (None, one.is_int8)]
            if not some:
                continue
            names = "–"
            if is_int8 is not None:
                by_core = (instruction(kind, is_int8, dot)[0] for dot in (True, False))
                names = " or ".join(dict.fromkeys(by_core))
            macs, moved = sum(one.macs for one in some), sum(one.bytes for one in some)
            kernel = KERNELS.get((kind, bool(is_int8)), "pad, leaky ReLU, add, resize, ...")
            lines.append(
                f"| {precision} | {kind} | {len(some)} | {macs / 1e6:.0f} | {moved / 1e6:.1f} | "
                f"{kernel} | {names} |"
            )
    return "\n".join(lines)


def board_table(
    operators: dict[str, list[Operator]], efficiency: float, int8_gain: float | None
) -> str:
    """Bound and estimate of every board, in milliseconds."""
    columns = " | ".join(f"{one} bound | {one} estimate" for one in operators)
    lines = [f"| board | cores | {columns} |", "|---" * (2 + 2 * len(operators)) + "|"]
    for board in BOARDS:
        guess = bound(operators["fp32"], board) / efficiency
        cells = [f"{board.name} | {board.cores} x {board.core} at {board.ghz} GHz"]
        for precision, found in operators.items():
            cells.append(f"{bound(found, board):.1f}")
            if precision == "fp32":
                cells.append(f"{guess:.0f}")
            else:
                cells.append(f"{guess / int8_gain:.0f}" if int8_gain and board.dot_product else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    args = parser.parse_args()
    bundle = load_bundle(args.model)

    def read(precision: str, width: int, height: int) -> list[Operator]:
        artifact = bundle.best(["tflite"], [precision])
        return read_operators(bundle.open(artifact), width, height) if artifact else []

    counted = {one: read(one, args.width, args.height) for one in ("fp32", "int8")}
    operators = {precision: found for precision, found in counted.items() if found}
    efficiency = paper_efficiency(read("fp32", 640, 480))
    gain = None
    if "int8" in operators:
        gain = measure_int8_gain(args.model, args.width, args.height)
    print(f"ESTIMATE, not measured on a board: {bundle.name}, {args.width} x {args.height}\n")
    print(work_table(operators))
    print(
        f"\nMilliseconds a frame. The estimate keeps the vector units {efficiency:.0%} busy;",
        end=" ",
    )
    print(f"int8 is {gain:.2f} times as fast as fp32.\n" if gain else "there is no int8 file.\n")
    print(board_table(operators, efficiency, gain))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
