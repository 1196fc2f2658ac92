"""Find the face of scikit-image's astronaut and draw it.

Run: pip install ".[samples]" && python samples/quickstart.py [OUT.jpg]
"""

import sys

import cv2
from skimage.data import astronaut

from edgeface import Detector


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "faces.jpg"
    image = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)

    detector = Detector()
    faces = detector(image)
    cv2.imwrite(out, faces.draw(image))

    print(detector.explain())
    for face in faces:
        print(f"score {face.score:.3f}, box {face.box}, landmarks:\n{face.landmarks}")
    print(f"drawn: {out}")


if __name__ == "__main__":
    main()
