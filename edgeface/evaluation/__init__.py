"""Accuracy: official WIDER FACE AP, mAP@0.5:0.95, recall by height, landmark error (no torch)."""
