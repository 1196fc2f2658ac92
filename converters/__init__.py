"""Torch to the formats that runtimes load: one file per target."""

if __name__ != "edgeface.converters":
    raise ImportError(
        "import this package as 'edgeface.converters'; install with: pip install -e ."
    )
