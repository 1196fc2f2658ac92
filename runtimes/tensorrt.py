"""TensorRT on NVIDIA GPUs: found and explained today; engines come in a later release."""

from __future__ import annotations

import ctypes

from edgeface.errors import BackendUnavailableError
from edgeface.runtimes.base import Runtime, RuntimeOptions, import_vendor

_NAME = "tensorrt"
_DRIVER = "libcuda.so.1"


def probe() -> str:
    """Import TensorRT, look for the NVIDIA driver, and return TensorRT's version.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        BackendUnavailableError: it does not import, or there is no NVIDIA driver.
    """
    version = str(import_vendor(_NAME).__version__)
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise BackendUnavailableError(
            f"expected the NVIDIA driver for the backend '{_NAME}', but {_DRIVER} cannot be "
            f"loaded ({error}); install the driver, or choose another backend"
        ) from error
    return version


def load(data: bytes, options: RuntimeOptions) -> Runtime:  # noqa: ARG001
    """Raise the error that says what is missing: this release builds no engines.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        BackendUnavailableError: always, where TensorRT is installed.
    """
    version = probe()
    raise BackendUnavailableError(
        f"expected a TensorRT engine, but this release of edgeface builds none (TensorRT {version} "
        "is installed); a later release will: until then choose 'onnxruntime' or 'openvino'"
    )
