"""Where an exported file begins to compute something else than torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.converters.layers import (
    Activations,
    Frame,
    onnx_layers,
    openvino_layers,
    tflite_layers,
    torch_layers,
    trained_layers,
)
from edgeface.errors import ConversionError

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet


@dataclass(frozen=True)
class Divergence:
    """The first layer that computes something else than torch.

    Attributes:
        layer: name of the torch module.
        snr_db: signal to noise of its output in dB, torch's output being the signal.
    """

    layer: str
    snr_db: float

    def __str__(self) -> str:
        return f"{self.layer} ({self.snr_db:.1f} dB)"


def snr_db(signal: NDArray[Any], got: NDArray[Any]) -> float:
    """Signal to noise in dB of what was got for a signal; infinite where they are equal."""
    noise = np.square(signal.astype(np.float64) - got).sum()
    if noise == 0:
        return float("inf")
    power = np.square(signal, dtype=np.float64).sum()
    return float(10 * np.log10(max(power, np.finfo(float).tiny) / noise))


def first_diverging(
    expected: Activations, got: Activations, least_snr_db: float
) -> Divergence | None:
    """Return the first layer, in the order in which torch runs them, that is below the bound.

    Raises:
        ConversionError: the layers or their shapes are not the same.
    """
    for name, signal in expected.items():
        if name not in got or got[name].shape != signal.shape:
            shape = f"{got[name].shape}" if name in got else "no such layer"
            raise ConversionError(f"expected layer '{name}' of shape {signal.shape}, got {shape}")
        ratio = snr_db(signal, got[name])
        if not ratio >= least_snr_db:
            return Divergence(name, ratio)
    return None


def find_divergence(
    net: DetectorNet, format: str, backend: str, content: bytes, frame: Frame, least_snr_db: float
) -> Divergence | None:
    """Find the first layer of an exported file whose output is not torch's.

    Convolutions by a constant matrix are left out: converters merge them with what follows.

    Args:
        net: the net that was exported.
        format: format of the file.
        backend: backend that runs it.
        content: the file.
        frame: uint8 (1, H, W, 3) BGR.
        least_snr_db: what every layer's output must reach.

    Returns:
        The layer; None where every convolution agrees, and the difference arises behind them.

    Raises:
        ConversionError: the file's layers cannot be matched with torch's.
    """
    expected = torch_layers(net, frame)
    names = list(expected)
    trained = {name.removesuffix(".weight") for name, _ in net.named_parameters()}
    expected = {name: maps for name, maps in expected.items() if name.split(" ")[0] in trained}
    if format == "tflite":
        got, clipped = tflite_layers(content, frame, names)
        expected = {
            name: np.maximum(maps, 0) if name in clipped else maps
            for name, maps in expected.items()
        }
    else:
        expected = trained_layers(net, expected)
        run = openvino_layers if backend == "openvino" else onnx_layers
        got = run(content, frame)
    return first_diverging(expected, got, least_snr_db)
