"""INT8 calibration: subset, quantisers and the accuracy gate."""

if __name__ != "edgeface.calibration":
    raise ImportError(
        "import this package as 'edgeface.calibration'; install with: pip install -e ."
    )
