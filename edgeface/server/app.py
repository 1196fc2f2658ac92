"""The routes: page, live stream, settings and the REST API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse

import edgeface
from edgeface.detector import Detector
from edgeface.errors import EdgeFaceError, InvalidImageError
from edgeface.faces import DEFAULT_SCORE_THRESHOLD
from edgeface.imageio import read_image
from edgeface.server.limits import Guard, Limits, cookie_name, cookie_value, problem
from edgeface.server.live import BOUNDARY, Live, above
from edgeface.server.reference import reference_page
from edgeface.server.schemas import BODY, LOWEST_THRESHOLD, REFUSALS, Detection, Threshold
from edgeface.server.stats import Stats

DECODERS = 2
HERE = Path(__file__).parent


def create_app(
    detector: Detector,
    live: Live | None = None,
    *,
    threshold: float = DEFAULT_SCORE_THRESHOLD,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
) -> FastAPI:
    """Build the server's application.

    Args:
        detector: finds the faces; its own score_threshold is the lowest that clients can ask for,
            so it should be ``LOWEST_THRESHOLD``.
        live: the preview, started; it is closed with the application. None: the page takes
            pictures and the browser's webcam instead.
        threshold: score threshold where a request names none.
        limits: what clients may ask for.
        host: name or address that the server listens on.
    """
    limits = limits or Limits()
    stats = Stats()
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="edgeface-detect")
    pending = 0

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if live is not None:
            live.attach(asyncio.get_running_loop())
        yield
        if live is not None:
            await asyncio.to_thread(live.close)
        pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="edgeface",
        description="Finds faces in pictures: boxes, scores and five landmarks.",
        version=edgeface.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if limits.token else [],
    )
    app.add_middleware(Guard, limits=limits, host=host)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(EdgeFaceError, _failed)

    def detect(data: bytes, threshold: float, max_faces: int | None) -> dict[str, Any]:
        started = time.perf_counter()
        image = read_image(data, max_pixels=limits.max_pixels)
        faces = above(detector(image), threshold)[:max_faces]
        milliseconds = (time.perf_counter() - started) * 1e3
        stats.add(milliseconds, len(faces))
        height, width = image.shape[:2]
        spent = {"width": width, "height": height, "milliseconds": round(milliseconds, 2)}
        return {**spent, **faces.to_dict()}

    @app.post(
        "/detect",
        summary="Find the faces of a picture",
        description="The picture is the body itself, or the file of a multipart form.",
        response_description="the faces, best first",
        response_model=Detection,
        response_model_exclude_none=True,
        responses=REFUSALS,
        openapi_extra={"requestBody": BODY},
    )
    async def detect_picture(
        request: Request,
        threshold: Annotated[
            float, Query(ge=LOWEST_THRESHOLD, le=1, description="only faces that score above it")
        ] = threshold,
        max_faces: Annotated[
            int | None, Query(ge=1, description="keep the best of them; none: all")
        ] = None,
    ) -> Any:
        nonlocal pending
        try:
            data = await asyncio.wait_for(_read_picture(request), limits.body_seconds)
        except asyncio.TimeoutError as error:
            raise HTTPException(
                408, f"expected the whole picture within {limits.body_seconds:g} s; send it again"
            ) from error
        if pending >= limits.max_pending:
            raise HTTPException(
                503,
                f"expected at most {limits.max_pending} pictures at a time; try again in a second",
                {"Retry-After": "1"},
            )
        pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, detect, data, threshold, max_faces)
        finally:
            pending -= 1

    @app.get("/stream.mjpg", summary="The live preview as MJPEG", response_class=Response)
    async def stream() -> StreamingResponse:
        if live is None:
            raise HTTPException(404, "expected a source; start it as 'edgeface serve SOURCE'")
        if live.viewers >= limits.max_viewers:
            raise HTTPException(
                503, f"expected at most {limits.max_viewers} viewers; close another page"
            )
        media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return StreamingResponse(live.parts(), media_type=media_type)

    @app.get("/stats", summary="Frames a second, latencies, and the live source's state")
    async def read_stats() -> dict[str, Any]:
        if live is not None:
            return live.describe()
        return {"source": None, "threshold": threshold, **stats.snapshot()}

    @app.put("/threshold", summary="Set the live page's score threshold", responses=REFUSALS)
    async def set_threshold(wanted: Threshold) -> Threshold:
        if live is None:
            raise HTTPException(404, "expected a source; pass ?threshold= to /detect instead")
        live.threshold = wanted.value
        return wanted

    @app.get("/health", summary="Whether the server answers and its source runs")
    async def health() -> JSONResponse:
        failed = live is not None and live.state == "failed"
        return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)

    @app.get("/api", summary="Model, backend and limits")
    async def info() -> dict[str, Any]:
        told = detector.explain()
        return {
            "edgeface": edgeface.__version__,
            "model": told.model,
            "backend": told.backend,
            "why": told.why,
            "precision": told.facts.get("precision", told.precision),
            "input_size": told.input_size,
            "threads": told.threads,
            "facts": dict(told.facts),
            "source": live.name if live else None,
            "limits": {
                "max_bytes": limits.max_bytes,
                "max_pixels": limits.max_pixels,
                "rate": limits.rate,
                "lowest_threshold": LOWEST_THRESHOLD,
            },
        }

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if limits.token is None or "token" not in request.query_params:
            return HTMLResponse(_asset("page.html"))
        response = RedirectResponse("/", 303)
        response.set_cookie(
            cookie_name(request), cookie_value(limits.token), httponly=True, samesite="strict"
        )
        return response

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi(), str(request.base_url)))

    for name, media_type in (("page.js", "text/javascript"), ("page.css", "text/css")):
        app.add_api_route(f"/{name}", _file(name, media_type), include_in_schema=False)
    return app


async def _read_picture(request: Request) -> bytes:
    """Read a request's picture: its body, or the first file of its form."""
    try:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await request.body()
        async with request.form(max_files=1, max_fields=8) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise HTTPException(400, "expected a form with a file, got none; name it 'file'")
            return await files[0].read()
    except FormParserError as error:
        raise HTTPException(400, f"expected a multipart form, got a broken one: {error}") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "expected the whole picture, but the client left") from error


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _file(name: str, media_type: str) -> Callable[[], Any]:
    async def serve() -> Response:
        return Response(_asset(name), media_type=media_type)

    return serve


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    told = "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one.get('input')!r}"
        for one in error.errors()
    )
    return JSONResponse({"error": "InvalidOptionError", "message": told}, 422)


async def _failed(_request: Request, error: Exception) -> JSONResponse:
    status = 422 if isinstance(error, InvalidImageError) else 500
    return JSONResponse({"error": type(error).__name__, "message": str(error)}, status)
