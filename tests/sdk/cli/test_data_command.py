"""``backup``, ``restore`` and ``doctor --repair``: what they refuse, what they ask, and that they do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.cli.scripted import cli


@pytest.mark.parametrize("command", [["backup", "b.tar"], ["restore", "b.tar"], ["doctor", "--repair", "--yes"]])
@pytest.mark.parametrize("where", ["flag", "environment"])
def test_a_server_elsewhere_is_refused_with_what_to_do(command: list[str], where: str) -> None:
    environment = {"AUTOGLM_ADDRESS": "there:1"} if where == "environment" else {}
    done = cli(*command, *(["--address", "there:1"] if where == "flag" else []), environment=environment)
    assert (done.status, done.replaced) == (2, [])
    assert "run it on that server's machine, with --data-dir" in done.err


def test_the_data_directory_and_the_file_are_named(tmp_path: Path) -> None:
    done = cli("backup", "b.tar", "--force", "--json", "--data-dir", str(tmp_path))
    expected = ["-m", "autoglm_server.maintenance", "backup", "--data-dir", str(tmp_path), "--json", "--force", "--"]
    assert [command for command, _ in done.replaced] == [[sys.executable, "-P", *expected, str(Path.cwd() / "b.tar")]]


@pytest.mark.parametrize("answer", ["y\n", "yes\n"])
def test_a_repair_that_is_agreed_to_goes_on(tmp_path: Path, answer: str) -> None:
    done = cli("doctor", "--repair", "--data-dir", str(tmp_path), stdin=answer, terminal="in err")
    assert "Look for damage in" in done.err
    assert [command[4] for command, _ in done.replaced] == ["repair"]


@pytest.mark.parametrize("answer", ["\n", "no\n", ""])
def test_a_repair_that_is_not_agreed_to_does_nothing(tmp_path: Path, answer: str) -> None:
    done = cli("doctor", "--repair", "--data-dir", str(tmp_path), stdin=answer, terminal="in err")
    assert (done.status, done.replaced) == (130, [])
    assert "nothing was changed" in done.err


def test_a_repair_without_a_terminal_needs_a_yes(tmp_path: Path) -> None:
    done = cli("doctor", "--repair", "--data-dir", str(tmp_path))
    assert (done.status, done.replaced) == (2, [])
    assert "--yes" in done.err
    assert cli("doctor", "--repair", "--yes", "--data-dir", str(tmp_path)).replaced
    assert cli("doctor", "--yes").status == 2


def test_backup_damage_repair_restore_of_the_real_thing(tmp_path: Path) -> None:
    """A plan of an embedded server; its journal loses its beginning, is repaired, and then restored."""
    data = tmp_path / "data"
    environment = {**os.environ, "AUTOGLM_DATA_DIR": str(data)}

    def autoglm(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "autoglm.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr + done.stdout
        return done.stdout + done.stderr

    autoglm("run", "15% of 2480")
    said = json.loads(autoglm("backup", "b.tar", "--json"))
    assert said["plans"] == 1
    assert "there already" in autoglm("backup", "b.tar", status=2)
    assert "--force" in autoglm("restore", "b.tar", status=2)  # which has ended the idle server
    with (data / "journal.db").open("r+b") as file:
        file.write(bytes(20))

    assert "autoglm doctor --repair" in autoglm("plans", status=2)
    repaired = json.loads(autoglm("doctor", "--repair", "--yes", "--json").splitlines()[-1])
    assert (repaired["complete"], repaired["whole"], repaired["events"]) == (True, 1, said["events"])
    restored = autoglm("restore", "b.tar", "--force")
    assert "1 plan with" in restored
    assert "372" in json.loads(autoglm("plans", "--json").splitlines()[0])["answer"]
    autoglm("run", "2 + 2")
