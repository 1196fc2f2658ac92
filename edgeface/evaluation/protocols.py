"""The papers' settings at inference, as data."""

from __future__ import annotations

from dataclasses import dataclass

from edgeface.errors import InvalidOptionError


@dataclass(frozen=True)
class Protocol:
    """How faces are read off a net for a published figure.

    Attributes:
        short_edges: every picture is resized to each of these short sides, in pixels, and what is
            found at all of them is put together; none: the size that the detector is asked for.
        flip: also look at the mirror image.
        box_voting: boxes that overlap the best one by this IoU are merged with it; None: NMS.
        score_threshold: only scores above it.
        top_k: boxes of all sizes together that enter NMS or voting.
        nms_threshold: of two boxes whose IoU is above it, the better one stays.
        max_faces: faces kept.
    """

    short_edges: tuple[int, ...] = ()
    flip: bool = False
    box_voting: float | None = None
    score_threshold: float = 0.02
    top_k: int = 5000
    nms_threshold: float = 0.4
    max_faces: int = 750

    def check(self) -> None:
        """Raise InvalidOptionError where a value makes no sense."""
        if any(edge < 1 for edge in self.short_edges):
            raise InvalidOptionError(
                f"expected short edges of at least 1 pixel, got {self.short_edges}"
            )
        if self.box_voting is not None and not 0 < self.box_voting <= 1:
            raise InvalidOptionError(
                f"expected box voting at an IoU in 0..1, got {self.box_voting}"
            )

    def describe(self) -> str:
        """What distinguishes it, in words for a table's title."""
        words = [f"short edges {', '.join(map(str, self.short_edges))}"] if self.short_edges else []
        words += ["flip"] if self.flip else []
        words += [f"box voting {self.box_voting:g}"] if self.box_voting is not None else []
        words += [f"score > {self.score_threshold:g}, top {self.top_k}, keep {self.max_faces}"]
        return ", ".join(words)


PROTOCOLS = {
    # Section 4.2, retinaface.txt, "Testing Details"; score, top k and faces kept are ours.
    "retinaface": Protocol((500, 800, 1100, 1400, 1700), flip=True, box_voting=0.4),
    # Section 3.6, refineface.txt, "Inference"; the STC's threshold 0.99 is part of the graph.
    "refineface": Protocol(score_threshold=0.05, top_k=5000),
    # Section 3.4, isrn.txt, "Inference"; it tests at several scales but does not say which.
    "isrn": Protocol(top_k=2000),
    # Section 4.4, df2s2.txt.
    "df2s2": Protocol((600, 800, 1000, 1200, 1400)),
    # Section 4.1, fanet.txt: the shorter side 640, as in tables 1 and 2.
    "fanet": Protocol((640,)),
}


def find_protocol(name: str) -> Protocol:
    """Look a protocol up; InvalidOptionError for an unknown one."""
    if name not in PROTOCOLS:
        raise InvalidOptionError(f"expected a protocol of {', '.join(PROTOCOLS)}, got '{name}'")
    return PROTOCOLS[name]
