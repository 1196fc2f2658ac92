"""The page of ``edgeface serve`` in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BOX_COLOR = (80, 220, 60)
FACES = "Number(document.querySelector('#faces').textContent)"
FPS = "Number(document.querySelector('#fps').textContent)"
STATUS = "document.querySelector('#status').textContent"


def assert_clean(page: Any, address: str) -> None:
    """No error in the console, and nothing asked of another server."""
    assert page.problems == []
    assert page.requested
    assert all(url.startswith((address, "data:", "blob:")) for url in page.requested)


def box_pixels(picture: Path) -> int:
    """Pixels in the colour of boxes, on the screen and left of the panel with the figures."""
    image = cv2.imread(str(picture))[:, :940].astype(int)
    return int((np.abs(image - BOX_COLOR).max(2) < 25).sum())


def test_live_page(
    serve: Callable[..., Any], browse: Callable[..., Any], astronaut_clip: Path, tmp_path: Path
) -> None:
    address = serve(str(astronaut_clip), "--backend", "onnxruntime").address
    page = browse(address)
    page.wait_for(f"{FACES} >= 1 && {FPS} > 0")
    page.wait_for("document.querySelector('#stream').naturalWidth === 640")
    assert "retinaface_mobilenet025 on onnxruntime" in page.evaluate("document.body.innerText")
    assert page.evaluate("document.querySelectorAll('#histogram rect').length") == 24
    assert page.evaluate("document.querySelector('#stream').alt").startswith("Live preview of")
    page.screenshot(tmp_path / "live.png")
    assert box_pixels(tmp_path / "live.png") > 500

    page.evaluate("document.querySelector('#threshold').focus()")
    page.press("End")
    page.wait_for(f"{FACES} === 0")
    page.wait_for("fetch('/stats').then(r => r.json()).then(s => s.threshold === 1)")
    assert page.evaluate("document.querySelector('#shown').textContent") == "1.00"
    page.press("Home")
    page.wait_for(f"{FACES} >= 1")
    assert_clean(page, address)


def test_page_says_when_the_server_is_gone(
    serve: Callable[..., Any], browse: Callable[..., Any], astronaut_clip: Path
) -> None:
    served = serve(str(astronaut_clip), "--backend", "onnxruntime")
    page = browse(served.address)
    page.wait_for(f"{FPS} > 0 && {STATUS} === ''")
    served.process.kill()
    page.wait_for(f"{STATUS} === 'the server does not answer'")


def test_picture_and_token(
    serve: Callable[..., Any],
    browse: Callable[..., Any],
    astronaut: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    address = serve("--backend", "onnxruntime", "--token", "s3cret").address
    page = browse(f"{address}/?token=s3cret")
    page.wait_for("!document.querySelector('#drop').hidden")
    assert page.evaluate("location.href") == f"{address}/"

    picture = tmp_path / "astronaut.png"
    cv2.imwrite(str(picture), astronaut)
    page.choose_file("#file", picture)
    page.wait_for(f"{FACES} === 1")
    assert page.evaluate("document.querySelector('#canvas').width") == 512
    page.screenshot(tmp_path / "picture.png")
    assert box_pixels(tmp_path / "picture.png") > 200

    page.evaluate("document.querySelector('#threshold').focus()")
    page.press("End")
    page.wait_for(f"{FACES} === 0")
    page.screenshot(tmp_path / "no_face.png")
    assert box_pixels(tmp_path / "no_face.png") < 20
    assert_clean(page, address)

    (tmp_path / "notes.png").write_text("no picture")
    page.choose_file("#file", tmp_path / "notes.png")
    page.wait_for(f"{STATUS} === 'expected a picture that this browser can show'")


def test_webcam_of_the_browser(
    serve: Callable[..., Any],
    browse: Callable[..., Any],
    astronaut: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(astronaut[:480, :512]))
    camera = tmp_path / "camera.mjpeg"
    camera.write_bytes(jpeg.tobytes() * 30)
    address = serve("--backend", "onnxruntime").address
    page = browse(address, f"--use-file-for-fake-video-capture={camera}")
    page.wait_for("!document.querySelector('#drop').hidden")
    page.evaluate("document.querySelector('#webcam').click()")
    page.wait_for(f"{FACES} === 1 && {FPS} > 0")
    page.evaluate("document.querySelector('#webcam').click()")
    page.wait_for("document.querySelector('#webcam').textContent.startsWith('use')")
    assert_clean(page, address)
