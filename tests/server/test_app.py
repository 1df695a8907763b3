"""The composition root in this process: what the journal's health does to the server, and what it is started with."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm_server import app, telemetry
from autoglm_server.app import EXIT_JOURNAL, Application, StartError, make_journal, reachable
from autoglm_server.clock import FakeClock
from autoglm_server.configuration import load
from autoglm_server.journal.journal import JournalFailedError, JournalVersionError
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.service.edge import options
from autoglm_server.settings import LogSettings, Settings

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


class SickJournal(MemoryJournal):
    """A journal that can be made to stall or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.why_stalled = ""
        self.why_failed: JournalFailedError | None = None

    @property
    def stalled(self) -> str:
        return self.why_stalled

    @property
    def failure(self) -> JournalFailedError | None:
        return self.why_failed


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> SickJournal:
    journal = SickJournal()
    monkeypatch.setattr(app, "make_journal", lambda _: journal)
    return journal


def settings(tmp_path: Path, **flags: Any) -> Settings:
    given = {"data_dir": tmp_path / "data", "server.port": 0, "journal.url": "memory:", **flags}
    return load(flags={key: ("test", value) for key, value in given.items()})


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[asyncio.Task[int]]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(application.run())
        await application.ready.wait()
        yield task
        application.stop()


async def check(application: Application) -> int:
    async with grpc.aio.insecure_channel(application.address) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        return int(response.status)


async def test_a_journal_that_is_full_is_not_serving_until_there_is_room(journal: SickJournal, tmp_path: Path) -> None:
    application = Application(settings(tmp_path))

    async with running(application) as task:
        assert await check(application) == SERVING
        journal.why_stalled = "disk full"
        journal.on_health()
        assert await check(application) == NOT_SERVING
        journal.why_stalled = ""
        journal.on_health()
        assert await check(application) == SERVING

    assert task.result() == 0


async def test_a_signal_that_comes_at_once_again_is_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    clock = FakeClock()
    application = Application(settings(tmp_path), clock=clock)

    application._on_signal(signal.SIGTERM)
    application._on_signal(signal.SIGTERM)
    clock.advance(0.999)
    application._on_signal(signal.SIGTERM)
    assert exits == []

    clock.advance(0.001)
    application._on_signal(signal.SIGTERM)
    assert exits == [128 + signal.SIGTERM]


async def test_a_journal_that_failed_ends_the_process(journal: SickJournal, tmp_path: Path) -> None:
    application = Application(settings(tmp_path))

    async with running(application) as task:
        journal.why_failed = JournalFailedError("fsync: input/output error")
        journal.on_health()
        assert await task == EXIT_JOURNAL

    assert not (tmp_path / "data" / "server.json").exists()


async def test_a_journal_that_cannot_be_opened(
    journal: SickJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise JournalVersionError("written by version 9; this is 1: install a newer AutoGLM")

    monkeypatch.setattr(journal, "open", fail)

    with pytest.raises(StartError, match="written by version 9") as caught:
        await Application(settings(tmp_path)).run()

    assert caught.value.status == 2


async def test_a_journal_elsewhere_leaves_the_data_directory_to_one_server(tmp_path: Path) -> None:
    application = Application(settings(tmp_path))

    async with running(application):
        with pytest.raises(StartError, match="is in use by"):
            await Application(settings(tmp_path)).run()

    async with running(Application(settings(tmp_path))):
        pass  # the lock was let go of


def test_journals_by_their_url(tmp_path: Path) -> None:
    assert isinstance(make_journal(settings(tmp_path)), MemoryJournal)

    for url in ("", f"sqlite://{tmp_path}/elsewhere"):
        assert type(make_journal(settings(tmp_path, **{"journal.url": url}))).__name__ == "SqliteJournal"

    with pytest.raises(StartError, match="is not known"):
        make_journal(settings(tmp_path, **{"journal.url": "sqlite:relative"}))


async def test_passwords_are_not_told_at_a_start_that_fails(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="is not known") as caught:
        make_journal(settings(tmp_path, **{"journal.url": "redis://ada:hunter2@host/0?token=hunter2"}))

    assert "hunter2" not in str(caught.value)

    with pytest.raises(StartError, match="not the URI of a provider") as caught:
        await Application(settings(tmp_path, **{"providers.x": "nope+http://ada:hunter2@host/"})).run()

    assert "ada" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_addresses_that_clients_can_use() -> None:
    assert reachable("0.0.0.0:5") == "127.0.0.1:5"
    assert reachable("[::]:5") == "[::1]:5"
    assert reachable("10.0.0.1:5") == "10.0.0.1:5"
    assert reachable("unix:///a/b") == "unix:///a/b"


def test_the_transports_options_that_are_wrong_by_default() -> None:
    found = dict(options(1000))

    assert found["grpc.so_reuseport"] == 0
    assert found["grpc.http2.ping_timeout_ms"] == found["grpc.keepalive_timeout_ms"] == 10_000
    assert found["grpc.http2.min_ping_interval_without_data_ms"] == 10_000
    assert found["grpc.max_concurrent_streams"] == 1000


def test_grpc_is_not_imported_before_its_environment_is_set() -> None:
    script = (
        "import sys, os, autoglm_server.__main__ as m\n"
        "assert 'grpc' not in sys.modules, 'grpc was imported by the flags'\n"
        "print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (out.stdout.strip(), out.stderr) == ("0", "")


# --- logs


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in telemetry.NOISY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)

    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


@pytest.mark.usefixtures("logging_restored")
def test_a_line_of_json_has_what_a_program_looks_for(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(LogSettings(format="json"))
    logging.getLogger("autoglm_server.x").info("plan %s", "ended", extra={"plan_id": "p", "step_id": "s"})
    logging.getLogger("autoglm_server.x").debug("not wanted")
    logging.getLogger("grpc._cython").info("noise")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)

    assert (found["message"], found["plan_id"], found["step_id"], found["level"]) == ("plan ended", "p", "s", "info")
    assert found["logger"] == "autoglm_server.x"


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", ["json", "console"])
def test_an_entry_stays_on_its_line(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    telemetry.configure(LogSettings(format=form))
    logging.getLogger("x").info("one\ntwo\x1b[2J", extra={"title": "a\nb", "names": ["c\nd"]})

    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "one" in line


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    telemetry.configure(LogSettings(format=form))

    def fails(password: str) -> None:
        raise ValueError("what happened")

    try:
        fails(f"hunter{1 + 1}")
    except ValueError:
        logging.getLogger("x").exception("call failed")

    told = capsys.readouterr().err
    assert "what happened" in told
    assert "fails" in told
    assert "hunter2" not in told


async def test_built_in_tools_that_cannot_be_made_keep_the_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match="the tools cannot be set up: register_tools: "):
        await Application(settings(tmp_path, workspace=tmp_path / "file" / "workspace")).run()
