"""The ``edgeface`` command: one parser, one module per subcommand, stable exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

import edgeface
from edgeface.cli import (
    ablate,
    bench,
    blur,
    calibrate,
    complain,
    detect,
    doctor,
    evaluate,
    export,
    import_checkpoint,
    presets,
    rank,
    report,
    serve,
    train,
    tune,
)
from edgeface.errors import EdgeFaceError

COMMANDS = {
    "detect": detect,
    "blur": blur,
    "serve": serve,
    "doctor": doctor,
    "tune": tune,
    "bench": bench,
    "eval": evaluate,
    "presets": presets,
    "train": train,
    "ablate": ablate,
    "rank": rank,
    "calibrate": calibrate,
    "export": export,
    "import": import_checkpoint,
    "report": report,
}
FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

DESCRIPTION = "Face detection on the edge: boxes, scores and five landmarks."
EPILOG = """\
examples:
  edgeface detect photo.jpg --out faces.jpg       find faces and draw them
  edgeface detect holiday/ --json faces.json      every picture and video of a folder
  edgeface blur street.mp4 -o safe.mp4            make the faces in it unrecognisable
  edgeface doctor                                 which backends run here, and why
  edgeface tune                                   measure which is the fastest, and use it

'edgeface COMMAND --help' explains a command.

exit codes:
  0 success · 1 an error, or some inputs failed · 2 wrong usage · 130 interrupted ·
  141 the reader of the output went away
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; subcommands import their heavy libraries only when they run."""
    parser = argparse.ArgumentParser(
        prog="edgeface",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgeface {edgeface.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in COMMANDS.values():
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: complain("warning", message)
            code: int = COMMANDS[args.command].run(args)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (EdgeFaceError, OSError) as error:
        complain("error", error)
        return FAILED
    except KeyboardInterrupt:
        complain("error", "interrupted")
        return INTERRUPTED
