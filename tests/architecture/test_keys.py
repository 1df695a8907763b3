"""The check after the whole suite notices a key, wherever it lies."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.conftest import HOLDERS, MARK, Watcher, leaks

KEY = MARK + b"of-this-test"


@pytest.fixture
def removed(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 4, (1 << 20) + 1, 3 << 20])
def test_a_key_is_found_at_any_place_of_a_file(removed: Path, before: int) -> None:
    path = removed / "deep" / "journal.db-wal"
    path.parent.mkdir()
    path.write_bytes(os.urandom(1) * before + KEY + b"\0" * 100)
    try:
        assert list(leaks(removed)) == [path]
    finally:
        path.unlink()

    assert not list(leaks(removed)), "the control: without it nothing is found"


def test_files_that_are_there_to_hold_a_key_may(removed: Path) -> None:
    path = removed / min(HOLDERS)
    path.write_bytes(KEY)
    assert not list(leaks(removed))


def test_a_log_record_with_a_key_is_noted(removed: Path) -> None:
    noted = removed / "noted"
    watcher = Watcher(noted)
    watcher.emit(logging.makeLogRecord({"name": "some.module", "msg": "asked with %s", "args": ("nothing",)}))
    assert not noted.exists()

    watcher.emit(logging.makeLogRecord({"name": "some.module", "msg": "asked with %s", "args": (KEY.decode(),)}))
    try:
        assert "some.module" in noted.read_text()
    finally:
        noted.unlink()
