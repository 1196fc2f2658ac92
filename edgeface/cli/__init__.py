"""The command line: ``main.py`` is the door, each other module one subcommand."""

import sys


def complain(kind: str, message: object) -> None:
    """Write one line on stderr: ``edgeface: error: …``."""
    print(f"edgeface: {kind}: {' '.join(str(message).split())}", file=sys.stderr)
