"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray


class Served(NamedTuple):
    """A running ``edgeface serve``, and its address without the last slash."""

    process: subprocess.Popen[str]
    address: str


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared data folder, named by EDGEFACE_DATA."""
    folder = os.environ.get("EDGEFACE_DATA")
    if not folder:
        pytest.skip("EDGEFACE_DATA does not name the data folder")
    return Path(folder)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of edgeface, with no verdict on any backend kept in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edgeface.runtimes.probe._verdicts", {})
    return tmp_path / "cache" / "edgeface"


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """scikit-image's public-domain portrait, BGR uint8 (512, 512, 3)."""
    skimage = pytest.importorskip("skimage.data")
    image = skimage.astronaut()[..., ::-1].copy()
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def astronaut_clip(astronaut: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of 25 Hz video, 640x480: the astronaut's portrait, slowly moving."""
    path = tmp_path_factory.mktemp("clip") / "astronaut.mp4"
    large = cv2.resize(astronaut, (900, 900))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (640, 480))
    for angle in np.linspace(0, 2 * np.pi, 50, endpoint=False):
        x, y = int(110 + 90 * np.cos(angle)), int(30 + 25 * np.sin(angle))
        writer.write(np.ascontiguousarray(large[y : y + 480, x : x + 640]))
    writer.release()
    return path


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start ``edgeface serve`` on a free port: ``serve(*options, patch="python code")``."""
    pytest.importorskip("fastapi", reason="needs the extra 'serve'")
    started: list[subprocess.Popen[str]] = []

    def serve(*options: str, patch: str = "") -> Served:
        code = f"import sys; from edgeface.cli.main import main; {patch}\nsys.exit(main())"
        command = [sys.executable, "-c", code, "serve", *options, "--port", "0"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if "open http" in line:
                return Served(process, line.split()[-1].rstrip("/"))
        raise AssertionError(process.stderr.read())

    yield serve
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, so that no build folder stays behind."""
    root = Path(__file__).parents[1]
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("edgeface", "runtimes", "converters", "calibration"):
        shutil.copytree(
            root / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, sources)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(sources)], check=True)
    return next(target.glob("edgeface-*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as an installed wheel lays it out, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lay a distribution with a plug-in out as pip would; returns its metadata's folder.

    ``install_plugin("acme", "npu = acme:BACKEND", {"acme.py": "..."})``
    """
    from edgeface.runtimes import plugins

    plugins._load.cache_clear()
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(distribution: str, entry_points: str, files: dict[str, str]) -> Path:
        for name, content in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(content)
            monkeypatch.delitem(sys.modules, name.partition("/")[0].removesuffix(".py"), False)
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[edgeface.runtimes]\n{entry_points}\n")
        importlib.invalidate_caches()
        return info

    return install


@pytest.fixture
def make_wider(tmp_path: Path) -> Callable[..., Path]:
    """Build a small copy of WIDER FACE's validation set: three pictures in two events.

    ``make_wider(images=..., mats=..., picture=..., faces=...)`` takes the two folders, the BGR
    picture to store and the faces, {(event, name): [(x, y, width, height, easy, medium, hard)]}.
    """
    scipy_io = pytest.importorskip("scipy.io")
    three = {
        ("0--A", "a_1"): [(10, 20, 30, 40, 1, 1, 1), (50, 5, 8, 9, 0, 0, 1)],
        ("0--A", "a_2"): [(30, 30, 4, 4, 0, 0, 0)],
        ("1--B", "b_1"): [(0, 0, 20, 30, 1, 1, 1)],
    }

    def column(values: Sequence[Any]) -> NDArray[np.object_]:
        cells = np.empty((len(values), 1), object)
        cells[:, 0] = values
        return cells

    def make(
        images: str = "images",
        mats: str = "ground_truth",
        picture: NDArray[np.uint8] | None = None,
        faces: Mapping[tuple[str, str], Sequence[tuple[int, ...]]] = three,
    ) -> Path:
        root = tmp_path / "wider"
        (root / mats).mkdir(parents=True, exist_ok=True)
        for event, name in faces:
            (root / images / event).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((80, 100, 3), np.uint8) if picture is None else picture
            cv2.imwrite(str(root / images / event / f"{name}.png"), pixels)
        rows = {key: np.array(values) for key, values in faces.items()}
        events = sorted({event for event, _ in faces})

        def cells(content: Callable[[str, str], Any]) -> NDArray[np.object_]:
            return column([column([content(*key) for key in faces if key[0] == e]) for e in events])

        val = {
            "event_list": column(events),
            "file_list": cells(lambda _, name: name),
            "face_bbx_list": cells(lambda *key: rows[key][:, :4].astype(np.int32)),
        }
        scipy_io.savemat(root / mats / "wider_face_val.mat", val)
        for index, subset in enumerate(("easy", "medium", "hard"), 4):
            kept = cells(lambda *key, i=index: (np.flatnonzero(rows[key][:, i]) + 1)[:, None])
            scipy_io.savemat(root / mats / f"wider_{subset}_val.mat", {"gt_list": kept})
        return root

    return make


@pytest.fixture
def evaluation_folders(
    astronaut: NDArray[np.uint8], make_wider: Callable[..., Path], tmp_path: Path
) -> list[Path]:
    """WIDER FACE's layout and a label.txt, of one picture, labelled as fp32 finds its face."""
    from edgeface import Detector

    with Detector("onnxruntime", precision="fp32", max_faces=1) as detector:
        [face] = detector(astronaut)
    x1, y1, x2, y2 = (round(float(value)) for value in face.box)
    box = (x1, y1, x2 - x1, y2 - y1)
    wider = make_wider(picture=astronaut, faces={("0--A", "a"): [(*box, 1, 1, 1)]})
    labels = tmp_path / "labels"
    (labels / "images").mkdir(parents=True)
    cv2.imwrite(str(labels / "images" / "b.png"), astronaut)
    points = " ".join(f"{x + 2:.2f} {y:.2f} 0" for x, y in face.landmarks)
    (labels / "label.txt").write_text(f"# b.png\n{' '.join(map(str, box))} {points} 1\n")
    return [wider, labels]
