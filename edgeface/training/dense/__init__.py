"""RetinaFace's dense regression branch (section 3.2, retinaface.txt): exists only in training.

From the feature vector of one anchor to a coloured face mesh (``graph``), lit (``light``), seen by
a camera (``camera``), drawn (``rasterizer``) and compared with the picture (``branch``).
"""
