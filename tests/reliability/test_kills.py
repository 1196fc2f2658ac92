"""Killed with -9 while it writes: what is there afterwards is whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeface import cache
from edgeface.bundle import load_bundle
from edgeface.errors import OutputError

KILLS = 100
PORTRAIT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
MODEL = "retinaface_mobilenet025"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def kill_while(work: Callable[[int], None], check: Callable[[], None]) -> None:
    """Run ``work`` over and over in a fork, kill it at a random moment, and check; many times."""
    rng = np.random.default_rng(0)
    started = time.monotonic()
    work(0)
    longest = 3 * (time.monotonic() - started)
    for number in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(1_000_000):
                    work(number * 1000 + turn)
            finally:
                os._exit(1)
        time.sleep(float(rng.uniform(0, longest)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the work failed before it was killed"
        check()


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: set[bytes | None] = set()

    def work(turn: int) -> None:
        cache.remember("compiled", "model", data=bytes([turn % 251]) * 300_000)

    def check() -> None:
        kept = cache.recall("compiled", "model")
        assert kept is None or (len(kept) == 300_000 and len(set(kept)) == 1)
        seen.add(kept and kept[:1])

    kill_while(work, check)
    assert len(seen - {None}) > 1


def test_two_processes_that_build_the_same_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    children = []
    for byte in (b"a", b"b"):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(200):
                    cache.remember("compiled", "model", data=byte * 200_000)
                    cache.remember("compiled", "other", data=byte * 100)
            finally:
                os._exit(0)
        children.append(child)
    recalled = 0
    while children:
        kept = cache.recall("compiled", "model")
        assert kept in (None, b"a" * 200_000, b"b" * 200_000)
        recalled += kept is not None
        done, status = os.waitpid(children[-1], os.WNOHANG)
        if done:
            assert status == 0
            children.pop()
    assert recalled > 1


def test_a_training_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgeface.nets import build
    from edgeface.training.checkpoint import AveragedWeights, load_checkpoint, save_checkpoint
    from edgeface.training.objectives import TrainingStep, build_objective
    from edgeface.training.recipe import Recipe

    def start() -> tuple[TrainingStep, AveragedWeights, list[torch.optim.Optimizer]]:
        net = build(MODEL)
        step = TrainingStep(net, build_objective(net, Recipe(MODEL)))
        return step, AveragedWeights(net, 0.9), [torch.optim.SGD(step.parameters(), 0.1)]

    run, resumed = start(), start()
    steps = []

    def work(turn: int) -> None:
        save_checkpoint(tmp_path, *run, turn)

    def check() -> None:
        steps.append(load_checkpoint(tmp_path, *resumed))

    kill_while(work, check)
    assert len(set(steps)) > 1


def test_an_export_over_an_older_bundle(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from edgeface.converters.bundle import Conversion, write_bundle
    from edgeface.converters.report import ParityReport
    from edgeface.nets.weights import load_weights, read_bundle_weights

    shipped = load_bundle(MODEL)
    net = load_weights(shipped.preset, read_bundle_weights(shipped))
    artifact = shipped.find("onnx", "fp32")
    assert artifact
    conversion = Conversion({("onnx", "fp32"): shipped.open(artifact)}, (), ParityReport((), {}))
    names = []

    def work(turn: int) -> None:
        write_bundle(f"turn {turn}", net, conversion, tmp_path / "model", {}, force=True)

    def check() -> None:
        bundle = load_bundle(tmp_path / "model")
        for one in bundle.artifacts:
            bundle.open(one)
        names.append(bundle.name)

    kill_while(work, check)
    assert len(set(names)) > 1


def test_the_command_that_compiles(tmp_path: Path) -> None:
    """The real command on a cold cache, killed ever later until it ends by itself."""
    pytest.importorskip("openvino")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "edgeface", "detect", str(PORTRAIT)]
    command += ["--backend", "openvino", "--json", str(tmp_path / "faces.json")]
    for delay in (0.3, 0.6, 0.9, 1.2, 1.5, 2.0):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert '"score"' in (tmp_path / "faces.json").read_text()


CALIBRATION = """
import sys
import numpy as np
from edgeface.bundle import load_bundle
from edgeface.calibration.quantize import quantize

class Frames(list):
    digest = "noise"
    def __getitem__(self, index):
        print(index, flush=True)
        return super().__getitem__(index)

noise = np.random.default_rng(0).integers(0, 256, (70, 1, 64, 96, 3), np.uint8)
bundle = load_bundle({model!r})
source = bundle.open(bundle.find("onnx", "fp32"))
content = quantize("onnx", source, Frames(noise))
open(sys.argv[1], "wb").write(content)
"""


def test_calibration_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from edgeface.calibration.ranges import SAVE_EVERY

    def start(name: str, cache_name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CALIBRATION.format(model=MODEL), str(tmp_path / name)],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / cache_name)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(process: subprocess.Popen[str]) -> list[int]:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return [int(line) for line in out.split()]

    killed = start("never", "first")
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) == SAVE_EVERY + 5:
            killed.kill()
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "never").exists()
    assert finish(start("resumed", "first"))[0] == SAVE_EVERY
    assert finish(start("whole", "second"))[0] == 0
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


EXPORT = """
import sys
from edgeface.bundle import load_bundle
from edgeface.cli.main import main
from edgeface.converters import bundle as converters

shipped = load_bundle({model!r})
content = shipped.open(shipped.find("onnx", "fp32"))
converters.to_onnx = lambda net: content
sys.exit(main(sys.argv[1:]))
"""


def test_an_int8_export_over_an_older_bundle(tmp_path: Path) -> None:
    """The command, but for torch's own export, killed while it calibrates and run again."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    import cv2

    pictures, output = tmp_path / "pictures", tmp_path / "model"
    (pictures / "images").mkdir(parents=True)
    rng, lines = np.random.default_rng(0), []
    portrait = cv2.imread(str(Path(__file__).parents[2] / "docs/astronaut.jpg"))
    for number in range(80):
        x, y = rng.integers(0, 512 - 90, 2)
        picture = portrait[y : y + 90, x : x + 90]
        cv2.imwrite(str(pictures / "images" / f"{number}.png"), picture)
        lines += [f"# {number}.png", "10 20 30 40"]
    (pictures / "label.txt").write_text("\n".join(lines))
    shutil.copytree(load_bundle(MODEL).path, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", EXPORT.format(model=MODEL), "export", "--model", MODEL]
    command += ["--target", "onnx", "--precision", "int8", "--data", str(pictures), "--force"]
    command += ["--images", "80", "--frame-size", "96", "-o", str(output)]
    ranges = tmp_path / "cache" / "edgeface" / "ranges"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ranges.is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before

    subprocess.run(command, env=environment, check=True, timeout=300, stdout=subprocess.DEVNULL)
    bundle = load_bundle(output)
    assert [one.format for one in bundle.artifacts] == ["safetensors", "onnx"]
    for artifact in bundle.artifacts:
        bundle.open(artifact)
    assert not list(tmp_path.glob(".model*"))


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from edgeface.cli.main import main
sys.exit(main({arguments!r}))
"""


def limited(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that may write files of at most ``limit`` bytes."""
    code = LIMITED.format(limit=limit, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_full_disk_stops_no_detection_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert limited(1000, "detect", str(PORTRAIT)).returncode == 0
    out = tmp_path / "out.jpg"
    result = limited(1000, "detect", str(PORTRAIT), "--out", str(out))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "expected" in result.stderr
    assert not out.exists()
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"] == []


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import resource

    from edgeface.nets import build
    from edgeface.training.checkpoint import AveragedWeights, load_checkpoint, save_checkpoint
    from edgeface.training.objectives import TrainingStep, build_objective
    from edgeface.training.recipe import Recipe

    net = build(MODEL)
    step = TrainingStep(net, build_objective(net, Recipe(MODEL)))
    average, optimizers = AveragedWeights(net, 0.9), [torch.optim.SGD(step.parameters(), 0.1)]
    save_checkpoint(tmp_path, step, average, optimizers, 7)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(tmp_path, step, average, optimizers, 8)
        except OutputError:
            os._exit(3)
        os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert load_checkpoint(tmp_path, step, average, optimizers) == 7
