"""Count the people who come by: one row per track, with when it was first and last seen.

A track is one uninterrupted visit. Who leaves and comes back is counted again: telling people
apart needs face recognition, for which `faces.crop_aligned` cuts the input.

Run: python samples/attendance.py door.mp4 -o visits.csv
     python samples/attendance.py 0
"""

import argparse
import csv
from pathlib import Path

from edgeface import Detector
from edgeface.tracking import Tracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, file or URL (default: 0)")
    parser.add_argument("-o", "--output", type=Path, help="CSV of the visits")
    parser.add_argument("--every", type=int, default=1, help="detect on each N-th frame only")
    parser.add_argument(
        "--least-seconds", type=float, default=0.5, help="shorter visits do not count"
    )
    args = parser.parse_args()

    source = int(args.source) if args.source.isdecimal() else args.source
    mode = "every" if Path(args.source).is_file() else "latest"
    tracker = Tracker(every=args.every, max_lost=2.0)
    first: dict[int, float] = {}
    visits: dict[int, float] = {}  # last seen, of those that count
    with (
        Detector(score_threshold=0.2) as detector,
        detector.stream(source, mode, track=tracker) as stream,
    ):
        try:
            for result in stream:
                for track in result.faces.track_ids.tolist():
                    now = result.timestamp
                    if now - first.setdefault(track, now) >= args.least_seconds:
                        if track not in visits:
                            print(f"{now:7.1f} s: visitor {len(visits) + 1} (track {track})")
                        visits[track] = now
        except KeyboardInterrupt:
            pass
        print(f"{len(visits)} visitors; {stream.stats}")

    if args.output:
        with args.output.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["track", "first_s", "last_s"])
            for track, last in visits.items():
                table.writerow([track, f"{first[track]:.2f}", f"{last:.2f}"])


if __name__ == "__main__":
    main()
