"""Keeps converters' chatter off the user's screen."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what converters log, warn and print, from Python and from C++ alike.

    torch.onnx and litert-torch report every pass on both standard streams. Inside this context
    file descriptors 1 and 2 go to a temporary file; errors still arrive, as exceptions.
    """
    streams = (1, 2)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in streams]
    level = logging.root.manager.disable
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for stream in streams:
            os.dup2(sink.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            logging.disable(level)
            for stream, copy in zip(streams, kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
