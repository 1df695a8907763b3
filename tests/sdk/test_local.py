"""Finding, starting and replacing the embedded server, with a stand-in that is a process as the real one is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autoglm
from autoglm import _grpc, local
from tests.sdk.both import Both

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory; whatever was started for it is ended."""
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-P", str(STAND_IN)))
    made = tmp_path / "data"
    made.mkdir()
    yield made

    for process in started(made):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def started(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().split()] if (folder / "starts").exists() else []


def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "server.json").read_text())
    return found


def say(folder: Path, **fields: Any) -> None:
    (folder / "server.json").write_text(json.dumps(said(folder) | fields))


def kill(process: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(process, signal.SIGKILL)

    with suppress(ProcessLookupError):
        while True:
            os.kill(process, 0)
            time.sleep(0.005)


def test_it_is_started_once_and_then_found(folder: Path) -> None:
    told: list[str] = []
    address = local.ensure(folder, progress=told.append)

    assert address == f"unix://{folder}/s"
    assert local.ensure(folder, progress=told.append) == address
    assert len(started(folder)) == 1
    assert told == [f"starting the embedded server of {folder}"]


def test_it_leads_a_session_of_its_own(folder: Path) -> None:
    local.ensure(folder)

    assert os.getsid(said(folder)["pid"]) == said(folder)["pid"] != os.getsid(0)


def test_those_who_start_at_once_meet_at_one_server(folder: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(local.ensure(folder))) for _ in range(3)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert set(found) == {f"unix://{folder}/s"}
    assert len(found) == 3


def test_one_that_dies_is_told_with_the_end_of_its_log(folder: Path) -> None:
    (folder / "server.log").write_text("from long ago\n")
    (folder / "behave").write_text("die")

    with pytest.raises(autoglm.UnavailableError, match="the journal is broken") as caught:
        local.ensure(folder)

    assert "status 1" in str(caught.value)
    assert "long ago" not in str(caught.value)


def test_one_that_never_serves_is_told_after_the_time(folder: Path) -> None:
    (folder / "behave").write_text("hang")

    with pytest.raises(autoglm.UnavailableError, match=r"not ready in 0\.3 s"):
        local.ensure(folder, timeout=0.3)


def test_a_file_left_by_a_crash_does_not_mislead(folder: Path) -> None:
    local.ensure(folder)
    kill(said(folder)["pid"])

    local.ensure(folder)

    assert len(started(folder)) == 2
    assert said(folder)["pid"] == started(folder)[1]


def test_other_settings_replace_an_idle_server(folder: Path) -> None:
    local.ensure(folder, server_args=["--planner", "rules"])
    local.ensure(folder, server_args=["--planner", "rules"])

    assert len(started(folder)) == 1

    local.ensure(folder, server_args=["--planner", "llm"])

    assert len(started(folder)) == 2
    assert said(folder)["pid"] == started(folder)[1]


def test_a_server_that_is_to_end_is_not_asked_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local.ensure(folder, server_args=["--planner", "rules"])
    first, asked, serving, kill_ = local.read(folder), list[bool](), _grpc.serving, os.kill
    told: list[int] = []

    def kill_and_note(process: int, number: int) -> None:
        told.append(process)
        kill_(process, number)

    def serving_and_note(address: str, *, timeout: float) -> str:
        asked.append(bool(told) and local.read(folder) == first)
        return serving(address, timeout=timeout)

    monkeypatch.setattr(local, "_ENDING_ASKED", 60.0)
    monkeypatch.setattr(os, "kill", kill_and_note)
    monkeypatch.setattr(_grpc, "serving", serving_and_note)
    local.ensure(folder, server_args=["--planner", "llm"])

    assert told == [started(folder)[0]]
    assert asked
    assert not any(asked)


def test_a_server_that_dies_and_leaves_its_file_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local.ensure(folder, server_args=["--planner", "rules"])
    monkeypatch.setattr(local, "_ENDING_ASKED", 0.05)
    monkeypatch.setattr(signal, "SIGTERM", signal.SIGKILL)
    local.ensure(folder, server_args=["--planner", "llm"])

    assert len(started(folder)) == 2


def test_other_settings_are_refused_while_a_plan_runs(folder: Path) -> None:
    local.ensure(folder, server_args=["--planner", "rules"])
    (folder / "busy").touch()

    with pytest.raises(autoglm.PreconditionError, match=r"runs plans.*--data-dir"):
        local.ensure(folder, server_args=["--planner", "llm"])

    local.ensure(folder)  # who names none takes it as it is
    assert len(started(folder)) == 1


def test_another_version_is_replaced(folder: Path) -> None:
    local.ensure(folder)
    say(folder, version="0.0.1")
    local.ensure(folder)

    assert len(started(folder)) == 2


def test_a_server_that_somebody_serves_is_never_replaced(folder: Path) -> None:
    address = local.ensure(folder)
    say(folder, embedded=False, version="0.0.1", fingerprint="")

    assert local.ensure(folder) == address

    with pytest.raises(autoglm.PreconditionError, match="autoglm serve"):
        local.ensure(folder, server_args=["--planner", "llm"])

    assert len(started(folder)) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_client_starts_it_again_when_it_has_gone(folder: Path, *, asynchronous: bool) -> None:
    both = Both(asynchronous, None, data_dir=folder)
    first = await both.do(both.client.info())
    os.kill(said(folder)["pid"], signal.SIGKILL)
    second = await both.do(both.client.info())
    await both.do(both.client.close())

    assert [int(first.version), int(second.version)] == started(folder)


def test_init_is_the_default_client(folder: Path) -> None:
    client = autoglm.init(data_dir=folder)

    try:
        assert autoglm.init(data_dir=folder) is client

        with pytest.raises(autoglm.PreconditionError, match="shutdown"):
            autoglm.init("localhost:1")
    finally:
        autoglm.shutdown()

    assert client.closed

    with autoglm.init(data_dir=folder) as other:
        assert other is not client

    autoglm.shutdown()  # nothing is left to close


def test_init_fails_at_once_if_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.Random.uniform", lambda self, a, b: 0.0)

    with pytest.raises(autoglm.UnavailableError, match="localhost:1"):
        autoglm.init("localhost:1", timeout=5)


def test_what_is_not_installed_is_told_with_the_line_to_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_NEEDED", ("autoglm_server", "no_such_package"))

    with pytest.raises(autoglm.UnavailableError, match="no_such_package") as caught:
        local.ensure(folder)

    assert "pip install 'open-autoglm[server]'" in str(caught.value)
    assert not started(folder)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(autoglm.UnavailableError, match="Choose another data directory"):
        local.ensure(tmp_path / "file" / "data")


def test_a_large_log_is_set_aside(folder: Path) -> None:
    (folder / "server.log").write_bytes(b"x" * (local.LOG_BYTES_MAX + 1))
    local.ensure(folder)

    assert (folder / "server.log.1").stat().st_size == local.LOG_BYTES_MAX + 1
    assert (folder / "server.log").stat().st_size < 1000
    assert (folder / "server.log").stat().st_mode & 0o077 == 0


def test_a_new_data_directory_is_private(folder: Path) -> None:
    local.ensure(folder / "a" / "b")

    assert (folder / "a" / "b").stat().st_mode & 0o077 == 0
    os.kill(said(folder / "a" / "b")["pid"], signal.SIGKILL)


@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
)
def test_a_server_file_that_is_none_is_no_server(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    folder = tmp_path_factory.mktemp("data", numbered=True)
    (folder / "server.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    assert local.read(folder) is None


def test_the_fingerprint_tells_settings_apart(tmp_path: Path) -> None:
    config = tmp_path / "autoglm.yaml"
    config.write_text("planner: {kind: rules}")
    ways: list[tuple[list[str], dict[str, str]]] = [
        (["--planner", "llm"], {}),
        ([], {"AUTOGLM_PLANNER__KIND": "llm"}),
        (["--config", str(config)], {}),
        ([f"--config={config}"], {}),
        ([], {"AUTOGLM_CONFIG": str(config)}),
    ]
    before = [local.fingerprint(args, environment) for args, environment in ways]
    config.write_text("planner: {kind: llm}")
    after = [local.fingerprint(args, environment) for args, environment in ways]

    assert len(set(before)) == 5
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, True, False, False, False]
    tools = tmp_path / "my tools.py"
    plugin = tmp_path / "plugin.py"
    config.write_text(f"plugins: [{{name: p, source: 'python:{plugin}:Plugin'}}]")
    named: list[tuple[list[str], dict[str, str]]] = [
        (["--provider", f"t=python:{tools}"], {}),
        ([f"--provider=t=python:{tools}"], {}),
        ([], {"AUTOGLM_PROVIDERS": f'{{"t": "python:{plugin}"}}'}),
        (["--config", str(config)], {}),
        (["--provider", "t=openapi:https://example.org/a.py"], {}),
    ]
    seen = [local.fingerprint(args, environment) for args, environment in named]
    for file, changed in ((tools, {0, 1}), (plugin, {2, 3}), (tmp_path / "other.py", set())):
        file.write_text("edited")
        now = [local.fingerprint(args, environment) for args, environment in named]
        assert {index for index in range(len(named)) if now[index] != seen[index]} == changed
        seen = now

    assert local.fingerprint([], {"AUTOGLM_ADDRESS": "x:1", "AUTOGLM_DATA_DIR": "/x", "HOME": "/"}) == ""


def test_the_data_directory_is_where_the_server_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert local.data_dir() == platformdirs.user_data_path("autoglm")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert local.data_dir() == platformdirs.user_data_path("autoglm")
    monkeypatch.setenv("AUTOGLM_DATA_DIR", "~/x")
    assert local.data_dir() == Path.home() / "x"
    assert local.data_dir("/y") == Path("/y")


def test_the_address_is_of_the_flag_then_the_environment_then_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_ADDRESS", "there:1")

    assert autoglm.Client().address == "there:1"
    assert autoglm.Client("here:2").address == "here:2"
    assert autoglm.Client(data_dir="/x").address == ""  # said to be embedded

    monkeypatch.setenv("AUTOGLM_ADDRESS", "http://there")

    with pytest.raises(autoglm.InvalidRequestError, match="host:port"):
        autoglm.Client()

    with pytest.raises(autoglm.InvalidRequestError, match="data_dir"):
        autoglm.Client("here:2", data_dir="/x")


def test_the_child_does_not_hold_the_starter_back(folder: Path) -> None:
    """A program that started the server ends at once, and without a warning, while the server lives on."""
    program = (
        "import sys\nfrom autoglm import local\n"
        f"local.COMMAND = (sys.executable, '-P', {str(STAND_IN)!r})\nprint(local.ensure({str(folder)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50, check=True
    )

    assert done.stdout == f"unix://{folder}/s\n"
    assert done.stderr == ""
    assert local.read(folder)
