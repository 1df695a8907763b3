"""How the peers are run; what they come to is no test's business."""

from __future__ import annotations

import os
import select
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.rows import Options

SECONDS = 10.0
STARTS = """
import pathlib, subprocess, sys
started = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
pathlib.Path(sys.argv[1]).write_text(str(started.pid))
print("RESULT", flush=True)
if sys.argv[2:]:
    started.wait()
"""


def ends(pid: int) -> bool:
    """Say whether a process that is nobody's here ends soon."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True

    try:
        return bool(select.select([process], [], [], SECONDS)[0])
    finally:
        os.close(process)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="looks at processes by Linux's handles of them")
@pytest.mark.parametrize("stays", [False, True])
async def test_what_a_peer_has_started_ends_with_it(tmp_path: Path, stays: bool) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-I", "-c", STARTS, str(noted), *["stays"] * stays]

    if stays:
        with pytest.raises(peers.NotThereError, match="took longer than 3 s"):
            await peers._output(command, 3.0, dict(os.environ))
    else:
        assert "RESULT" in await peers._output(command, SECONDS, dict(os.environ))

    assert ends(int(noted.read_text(encoding="ascii")))


async def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-I", "-c", "raise OSError('no index')"]
    with pytest.raises(peers.NotThereError, match=r"ended with 1: OSError: no index"):
        await peers._output(command, SECONDS, dict(os.environ))

    with pytest.raises(peers.NotThereError, match=r"^pip: No such file"):
        await peers._output(["/nowhere/pip"], SECONDS, {})


async def test_a_peer_that_fails_is_told_of_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"steps": 2.0, "p50": 1.0, "fan": 1.0}
    run: list[str] = []

    async def installed(peer: peers.Peer, under: Path) -> Path:
        if peer.name == "restate":
            raise peers.NotThereError("npm: No such file or directory")

        return under

    async def once(peer: peers.Peer, _home: Path, variant: str, _under: str | None) -> dict[str, object]:
        run.append(f"{peer.name}.{variant}")
        if variant == "server" or (variant == "wal" and run.count("dbos.wal") > 1):
            raise peers.NotThereError("too slow")

        return figures | {"note": "its version"}

    async def own(_load: object) -> dict[str, float]:
        return figures

    monkeypatch.setattr(peers, "installed", installed)
    monkeypatch.setattr(peers, "_run", once)
    monkeypatch.setattr(peers, "_own", own)
    monkeypatch.setattr(peers, "Loads", lambda _: nullcontext((None, None)))
    options = Options(rounds=3, peers_dir=str(tmp_path))
    rows = await peers.peers(options)

    assert options.missing == {"peers.restate": "npm: No such file or directory", "peers.prefect.server": "too slow"}
    assert {row.name.rpartition(".")[0]: len(row.values) for row in rows} == {
        "peers.autoglm": 3,
        "peers.dbos.plain": 3,
        "peers.dbos.wal": 1,
        "peers.langgraph.graph": 3,
        "peers.langgraph.functions": 3,
    }
    assert run.count("prefect.server") == 1
    assert run.count("dbos.wal") == 2
