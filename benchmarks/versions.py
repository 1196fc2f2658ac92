"""Does edgeface detect on every Python and NumPy that is here? A Markdown table.

    python benchmarks/versions.py [--python 3.10 3.11 3.12 3.13] [--numpy 1.26.4 2.4.6]

For each pair it makes an empty virtual environment, installs the wheel of this checkout with its
core dependencies and that NumPy, and finds the face of the portrait in docs/. An interpreter or a
wheel that is missing is told as such.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DETECT = """
import json, sys
import cv2, numpy, onnxruntime
from edgeface import Detector
faces = Detector("onnxruntime", precision="fp32", input_size=320)(sys.argv[1])
print(json.dumps([numpy.__version__, cv2.__version__, onnxruntime.__version__, len(faces),
                  [round(float(value), 2) for value in faces.boxes[0]]]))
"""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout from a clone, so that no build folder stays."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(clone)], check=True)
    return next(folder.glob("edgeface-*.whl"))


def try_pair(python: str, numpy: str, wheel: Path, folder: Path) -> str:
    """Table cells of one pair."""
    interpreter = shutil.which(f"python{python}")
    if interpreter is None:
        return "no such interpreter here | | | |"
    environment = folder / f"{python}-{numpy}"
    subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
    inside = str(environment / "bin" / "python")
    install = [inside, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    result = subprocess.run(
        [*install, str(wheel), f"numpy=={numpy}"], capture_output=True, text=True, check=False
    )
    if result.returncode:
        return f"no wheels: {result.stderr.strip().splitlines()[-1][:80]} | | | |"
    result = subprocess.run(
        [inside, "-c", DETECT, str(ROOT / "docs" / "astronaut.jpg")],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    shutil.rmtree(environment)
    if result.returncode:
        return f"fails: {result.stderr.strip().splitlines()[-1][:80]} | | | |"
    found, opencv, runtime, faces, box = json.loads(result.stdout.splitlines()[-1])
    return f"NumPy {found} | {opencv} | {runtime} | {faces} | {box}"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Python and NumPy versions, as a Markdown table.")
    parser.add_argument("--python", nargs="+", default=["3.10", "3.11", "3.12", "3.13"])
    parser.add_argument("--numpy", nargs="+", default=["1.26.4", "2.4.6"])
    args = parser.parse_args()
    print("| Python | result | OpenCV | ONNX Runtime | faces | box |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch))
        for python in args.python:
            for numpy in args.numpy:
                print(f"| {python} | {try_pair(python, numpy, wheel, Path(scratch))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
