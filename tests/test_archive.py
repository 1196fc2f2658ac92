"""Archives: the plan, the files it reads and writes, and a run on two Ray workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector
from edgeface.cli.main import main
from edgeface.errors import (
    BackendUnavailableError,
    InvalidImageError,
    InvalidOptionError,
    MissingDependencyError,
    ModelNotFoundError,
    OutputError,
)

fs = pytest.importorskip("pyarrow.fs")
pq = pytest.importorskip("pyarrow.parquet")
ray = pytest.importorskip("ray")

from edgeface.archive import Archive, cluster, pipeline, places  # noqa: E402
from edgeface.archive.worker import Worker  # noqa: E402

SAMPLE = Path(__file__).parents[1] / "samples" / "archive_ray.py"
PICTURES = 40


@pytest.fixture(scope="module")
def photos(astronaut: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty portraits in folders, one of them broken, and a clip of three frames."""
    folder = tmp_path_factory.mktemp("photos")
    _, data = cv2.imencode(".jpg", astronaut)
    for index in range(PICTURES):
        path = folder / f"{index % 3}" / f"{index:02d} é.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.tobytes()[: 20_000 if index == 17 else None])
    writer = cv2.VideoWriter(
        str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (320, 240)
    )
    for _ in range(3):
        writer.write(astronaut[:240, 100:420])
    writer.release()
    (folder / "notes.txt").write_text("not looked at")
    return folder


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Every row, as anyone's Parquet reader sees the folder."""
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def write(archive: Archive, out: Path, shard: int) -> dict[str, Any]:
    """Do one shard's work in this process."""
    worker = Worker(str(out), {"backend": "onnxruntime", "threads": 1})
    return worker({"shard": shard, "files": archive.pending[shard]})


@pytest.mark.slow
def test_a_killed_run_goes_on_without_duplicates_or_holes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faces"
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150_000_000,
        log_to_driver=False,
    )
    try:
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, SAMPLE, photos, out, "--ray", address, "--shard-size", "2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == "41 files, 41 to go\n"
            assert killed.stdout.readline().startswith("shard ")
            killed.kill()
        before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
        assert 1 <= len(before) < 21

        flags = ["--recursive", "--ray", address, "--parquet", str(out), "--workers", "2"]
        assert main(["detect", str(photos), *flags]) == 1
    finally:
        ray.shutdown()

    rows = rows_of(out)
    files = [row["file"] for row in rows if row["frame"] in (None, 0)]
    expected = [*photos.rglob("*.jpg"), photos / "clip.avi"]
    assert sorted(files) == sorted(map(str, expected))
    assert [row["frame"] for row in rows if row["file"].endswith(".avi")] == [0, 1, 2]
    (broken,) = [row for row in rows if row["error"]]
    assert broken["file"] == str(photos / "2" / "17 é.jpg")
    assert "truncated" in broken["error"]
    assert [len(row["faces"]) for row in rows if not row["error"]] == [1] * (len(rows) - 1)
    assert {path.name for path in out.iterdir()} == {
        "_inputs.parquet", *(f"part-{shard:06d}.parquet" for shard in range(21))
    }  # fmt: skip
    after = {name: (out / name).stat().st_mtime_ns for name in before}
    assert after == before

    capsys.readouterr()
    assert main(["detect", str(photos), *flags]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == "41 of 41 inputs are done already"
    assert last.startswith(f"41 inputs, 1 failed, 42 faces in {out}; 0 now, in ")


def test_rows_are_what_the_detector_finds(photos: Path, tmp_path: Path) -> None:
    archive = Archive([str(photos / "0")], str(tmp_path), shard_size=2)
    receipt = write(archive, tmp_path, 0)
    assert receipt == {
        "shard": 0, "inputs": 2, "faces": 2, "errors": [], "stopped": "", "message": ""
    }  # fmt: skip
    row, _ = rows_of(tmp_path)
    faces = Detector("onnxruntime", threads=1)(row["file"])
    assert (row["width"], row["height"], row["frame"]) == (512, 512, None)
    (face,) = row["faces"]
    np.testing.assert_allclose([face[s] for s in ("x1", "y1", "x2", "y2")], faces[0].box, atol=1e-3)
    assert face["right_mouth_y"] == pytest.approx(faces[0].landmarks[4, 1], abs=1e-3)


@pytest.mark.parametrize(
    ("out", "options", "error", "expected"),
    [
        ("gone", {}, OutputError, "expected to write .*gone"),
        (".", {"model": "nope"}, ModelNotFoundError, "nope"),
    ],
)
def test_what_stops_a_worker_is_raised_by_the_run(
    out: str, options: dict[str, Any], error: type[Exception], expected: str, tmp_path: Path
) -> None:
    worker = Worker(str(tmp_path / out), {"threads": 1, **options})
    row = worker({"shard": 3, "files": []})
    with pytest.raises(error, match=expected):
        pipeline._receipt(row)
    assert list(tmp_path.iterdir()) == []


def test_new_files_join_and_gone_files_are_recorded(photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    data = (photos / "0" / "00 é.jpg").read_bytes()
    for name in ("b.jpg", "c.jpg"):
        (folder / name).write_bytes(data)
    archive = Archive([str(folder)], str(out), shard_size=1)
    write(archive, out, 0)
    (folder / "a.jpg").write_bytes(data)
    (folder / "c.jpg").unlink()

    archive = Archive([str(folder), str(folder / "a.jpg")], str(out), shard_size=5)
    assert (archive.total, archive.remaining) == (3, 2)
    names = {shard: [Path(file).name for file in files] for shard, files in archive.pending.items()}
    assert names == {1: ["c.jpg"], 2: ["a.jpg"]}
    assert "does not exist" in write(archive, out, 1)["errors"][0]
    write(archive, out, 2)
    summary = Archive([str(folder)], str(out)).summary()
    assert (summary.inputs, summary.failed, summary.faces) == (3, 1, 2)


def test_a_half_written_shard_does_not_count(photos: Path, tmp_path: Path) -> None:
    Archive([str(photos / "0")], str(tmp_path), shard_size=10)
    (tmp_path / f"{places.TEMPORARY}1").write_bytes(b"PAR1")
    assert sorted(Archive([str(photos / "0")], str(tmp_path)).pending) == [0, 1]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"score_threshold": 0.9}, "score_threshold 0.4"),
        ({"input_size": (320, 320)}, "input_size 640"),
    ],
)
def test_other_options_need_another_folder(
    changed: dict[str, Any], expected: str, photos: Path, tmp_path: Path
) -> None:
    Archive([str(photos / "0")], str(tmp_path))
    Archive([str(photos / "0")], str(tmp_path), options={"backend": "onnxruntime", "threads": 2})
    with pytest.raises(InvalidOptionError, match=expected):
        Archive([str(photos / "0")], str(tmp_path), options=changed)


def test_a_plan_that_is_lost_or_damaged(photos: Path, tmp_path: Path) -> None:
    archive = Archive([str(photos / "0")], str(tmp_path))
    write(archive, tmp_path, 0)
    plan = tmp_path / "_inputs.parquet"
    plan.write_bytes(plan.read_bytes()[:50])
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        Archive([str(photos / "0")], str(tmp_path))
    plan.unlink()
    with pytest.raises(InvalidOptionError, match=r"beside part-000000\.parquet"):
        Archive([str(photos / "0")], str(tmp_path))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "expected"),
    [
        ([""], {}, InvalidOptionError, "got none"),
        (["gone"], {}, InvalidOptionError, "gone, which does not exist"),
        (["nope://bucket/key"], {}, InvalidOptionError, "nope://bucket"),
        (["s3://key:secret@bucket/in"], {}, InvalidOptionError, "^(?!.*secret).*a password"),
        (["0"], {"model": "nope"}, ModelNotFoundError, "nope"),
        (["0"], {"backend": "nope"}, InvalidOptionError, "nope"),
        (["0"], {"score_threshold": 2.0}, InvalidOptionError, "2.0"),
    ],
)
def test_bad_input_writes_nothing(
    inputs: list[str],
    options: dict[str, Any],
    error: type[Exception],
    expected: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos)
    empty = tmp_path / "empty"
    empty.mkdir()
    names = [name or str(empty) for name in inputs]
    with pytest.raises(error, match=expected):
        Archive(names, str(tmp_path / "out"), options=options)
    assert not (tmp_path / "out").exists()


def test_unwritable_place(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="another place"):
        Archive([str(photos / "0")], str(tmp_path / "file" / "below"))
    flags = ["--ray", "local", "--parquet", str(tmp_path / "file")]
    assert main(["detect", str(photos / "0"), *flags]) == 1
    assert capsys.readouterr().err.startswith("edgeface: error: expected to write ")


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_missing_extra(
    package: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*edgeface\[archive\]"):
        Archive([str(photos)], str(tmp_path))


def test_no_cluster_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(BackendUnavailableError, match=rf"{address}.*refused.*ray start"),
            cluster.cluster(address, None),
        ):
            pytest.fail("joined a cluster that is not there")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--ray", "local"], "--ray and --parquet together"),
        (["--parquet", "out"], "--ray and --parquet together"),
        (["--ray", "local", "--parquet", "out", "--csv", "a.csv"], "no --csv beside --ray"),
    ],
)
def test_wrong_usage(flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["detect", "photos", *flags])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for ``s3://bucket``."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    remote = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    def from_uri(address: str) -> tuple[Any, str]:
        assert address == "s3://bucket?region=x"
        return remote, "bucket"

    monkeypatch.setattr(places, "_root", from_uri)
    return folder


def test_remote_files(photos: Path, bucket: Path) -> None:
    (bucket / "in").mkdir()
    for source, name in (("0/00 é.jpg", "a b.jpg"), ("2/17 é.jpg", "cut.jpg"), ("clip.avi",) * 2):
        (bucket / "in" / name).write_bytes((photos / source).read_bytes())
    archive = Archive(["s3://bucket/in?region=x"], "s3://bucket/out?region=x")
    assert archive.pending == {
        0: [f"s3://bucket/in/{name}?region=x" for name in ("a b.jpg", "clip.avi", "cut.jpg")]
    }
    archive.pending[0].append("s3://bucket/in/gone.jpg?region=x")
    worker = Worker("s3://bucket/out?region=x", {"threads": 1})
    receipt = worker({"shard": 0, "files": archive.pending[0]})
    assert (receipt["inputs"], receipt["faces"]) == (4, 4)
    cut, gone = receipt["errors"]
    assert "truncated" in cut
    assert gone.startswith("s3://bucket/in/gone.jpg?region=x: expected a file that can be read")
    assert len(rows_of(bucket / "out")) == 6
    assert Archive(["s3://bucket/in?region=x"], "s3://bucket/out?region=x").remaining == 0


def test_a_remote_file_too_large_for_a_picture(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAX_BYTES", 10)
    (bucket / "large.jpg").write_bytes(bytes(11))
    with pytest.raises(InvalidImageError, match="at most 10 bytes"):
        places.fetch("s3://bucket/large.jpg?region=x")


def test_file_addresses_are_local(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert places.find(f"file://{photos}/clip.avi", recursive=False) == [str(photos / "clip.avi")]
    assert places.find("clip.avi", recursive=False) == [os.fspath(photos / "clip.avi")]
    assert places.find("0/../clip.avi", recursive=False) == [os.fspath(photos / "clip.avi")]
