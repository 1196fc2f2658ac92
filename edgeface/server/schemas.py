"""What the API takes and answers, as its OpenAPI schema tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

LOWEST_THRESHOLD = 0.05
BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


class Problem(BaseModel):
    """What every refused request is answered with."""

    error: str = Field(description="kind of error")
    message: str = Field(description="what was expected, what came, and the remedy")


class FoundFace(BaseModel):
    """One face, in pixels of the upright picture."""

    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2")
    score: float = Field(ge=0, le=1)
    landmarks: dict[str, tuple[float, float]] | None = Field(
        None, description="x, y of left_eye, right_eye, nose, left_mouth and right_mouth"
    )


class Detection(BaseModel):
    """The faces of a picture, best first."""

    width: int
    height: int
    milliseconds: float = Field(description="decoding, waiting for the detector, and detection")
    faces: list[FoundFace]


class Threshold(BaseModel):
    """The score above which the live page shows a face."""

    value: float = Field(ge=LOWEST_THRESHOLD, le=1)


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "malformed request",
        401: "the server wants its token",
        408: "the picture did not arrive in time",
        413: "the picture has too many bytes",
        422: "no picture that can be read, or an option out of range",
        429: "too many requests; see Retry-After",
        503: "too many pictures are waiting; see Retry-After",
    }.items()
}
