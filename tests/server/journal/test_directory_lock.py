"""The data directory: what is made of it outlasts a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoglm_server.journal._lock import DirectoryLock


def test_what_is_made_of_a_data_directory_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    for _ in range(2):
        DirectoryLock(tmp_path / "a" / "b", "a test").release()

    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
