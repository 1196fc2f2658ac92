"""``edgeface tune``: which backend, precision and number of threads are the fastest here."""

from edgeface.tuning.measure import Tuning, tune

__all__ = ["Tuning", "tune"]
