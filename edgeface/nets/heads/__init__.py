"""Heads: pyramid levels to class scores, box deltas and landmark offsets of every anchor."""
