"""One file per backend, each behind the small protocol of ``edgeface.runtimes.base``."""

if __name__ != "edgeface.runtimes":
    raise ImportError("import this package as 'edgeface.runtimes'; install with: pip install -e .")
