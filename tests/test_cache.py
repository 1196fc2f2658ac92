from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeface import cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgeface"


def test_what_was_remembered_is_recalled_under_its_key_alone() -> None:
    cache.remember("kind", "model", (1, 2), data=b"\nbytes\n")
    assert cache.recall("kind", "model", (1, 2)) == b"\nbytes\n"
    assert cache.recall("kind", "model", (1, 3)) is None
    assert cache.recall("other", "model", (1, 2)) is None


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 500])
def test_a_damaged_entry_counts_as_absent(home: Path, damage: bytes) -> None:
    cache.remember("kind", "key", data=b"value")
    [entry] = (home / "kind").iterdir()
    entry.write_bytes(damage)
    assert cache.recall("kind", "key") is None


def test_a_changed_byte_counts_as_damage(home: Path) -> None:
    cache.remember("kind", "key", data=b"value")
    [entry] = (home / "kind").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")
    assert cache.recall("kind", "key") is None


def test_the_oldest_entries_go(home: Path) -> None:
    known: set[Path] = set()
    for number in range(40):
        cache.remember("kind", number, data=str(number).encode())
        [newest] = set((home / "kind").iterdir()) - known
        os.utime(newest, (number, number))
        known.add(newest)
    kept = [number for number in range(40) if cache.recall("kind", number)]
    assert kept == list(range(8, 40))


def test_no_writable_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.remember("kind", "key", data=b"value")
    assert cache.recall("kind", "key") is None


def test_no_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.cache_dir() is None
    cache.remember("kind", "key", data=b"value")
    assert cache.recall("kind", "key") is None
