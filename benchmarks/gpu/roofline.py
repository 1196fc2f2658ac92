"""The least time that a chip can need for a net: its arithmetic, or its memory's bandwidth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Billions of multiply-accumulates of a 640 x 480 picture, as `edgeface presets` counts them; they
# grow with the pixels.
GMAC = {"retinaface_mobilenet025": 0.736, "retinaface_resnet18": 11.624}
VGA_PIXELS = 640 * 480

# Multiply-accumulates of one multiprocessor and clock, dense: fp32 on CUDA cores, fp16 on tensor
# cores; INT8 does twice the fp16. Derived from the peaks, clocks and core counts of NVIDIA's data
# sheets. TF32 runs on tensor cores too: "auto" may beat the bound of fp32.
FP32 = {(7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128, (12, 0): 128}
FP16 = {(7, 5): 512, (8, 0): 1024, (8, 6): 512, (8, 7): 1024, (8, 9): 512, (9, 0): 2048,
        (12, 0): 512}  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """Peak figures of a GPU at its highest clocks; 0 where CUDA does not tell.

    Attributes:
        name: the GPU.
        macs: multiply-accumulates a second by precision.
        bandwidth: bytes a second of its memory.
    """

    name: str
    macs: dict[str, float]
    bandwidth: float

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {2e-12 * rate:.1f} TFLOPS" for name, rate in self.macs.items())
        return f"{self.name}: {peaks}; {1e-9 * self.bandwidth:.0f} GB/s"


def read_chip(cuda: Any) -> Chip:
    """Ask CUDA for the first GPU's peak figures."""

    def attribute(name: str) -> int:
        kind = getattr(cuda.runtime.cudaDeviceAttr, f"cudaDevAttr{name}")
        return int(cuda.call("cudaDeviceGetAttribute", kind, 0))

    device = cuda.device()
    clocks = 1e3 * attribute("ClockRate") * attribute("MultiProcessorCount")
    half = FP16.get(device.capability, 0) * clocks
    macs = {"fp32": FP32.get(device.capability, 0) * clocks, "fp16": half, "int8": 2 * half}
    # Two transfers a clock, over the bus's width in bits.
    bandwidth = 2e3 * attribute("MemoryClockRate") * attribute("GlobalMemoryBusWidth") / 8
    return Chip(device.name, macs, bandwidth)


def least_milliseconds(
    chip: Chip, preset: str, precision: str, pixels: int, moved: int
) -> float | None:
    """The roofline's bound for frames.

    Args:
        chip: the GPU.
        preset: the net, of ``GMAC``.
        precision: "fp32", "fp16" or "int8".
        pixels: of all frames of a call.
        moved: bytes that must cross the memory at least: weights, frames and outputs. What lies
            between layers is taken to stay in the cache.

    Returns:
        Milliseconds; None where chip or net are not known.
    """
    rate = chip.macs.get(precision, 0.0)
    if preset not in GMAC or not rate or not chip.bandwidth:
        return None
    arithmetic = 1e9 * GMAC[preset] * pixels / VGA_PIXELS / rate
    return 1e3 * max(arithmetic, moved / chip.bandwidth)
