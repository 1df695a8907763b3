"""``autoglm serve`` goes straight to the server where, and only where, the command would have told it the same."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoglm import local
from autoglm.cli import serving
from autoglm_server.__main__ import parser
from tests.sdk.cli.scripted import cli

WORDS = st.sampled_from(
    [
        *("--config", "--host", "--port", "--data-dir", "--provider", "--workspace", "--log-level", "--show-config"),
        *("--host=h", "--port=", "--port=7", "--port=-1", "--provider=a=b", "--provider=a", "--embedded", "--unknown"),
        *("0", "65535", "65536", "x", "d", "c.yaml", "mine=python:t.py", "mine=", "", "-", "--", "-h", "--help", "-x"),
        *("a b", "--model=--help", "--data-dir=--host", "७", " 7", "+7", "1_0"),
    ]
)


def understood(flags: list[str]) -> object:
    """What the server's parser makes of flags; its complaint where it cannot."""
    told = io.StringIO()

    try:
        with contextlib.redirect_stderr(told):
            return vars(parser().parse_args(flags))
    except SystemExit:
        return told.getvalue()


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, max_size=6))
@example(["--workspace", "--host=h", "a b"])
@example(["--config", "c", "--port", "0", "--provider", "a=b", "--provider", "b=c", "--host", "g", "--host", "h"])
def test_straight_is_what_the_command_would_have_told(words: list[str]) -> None:
    if serving.plain_flags(["serve", *words]) is None:
        return

    done = cli("serve", *words)
    ((command, _),) = done.replaced

    assert command[:4] == [sys.executable, "-P", "-m", "autoglm_server"]
    assert str(understood(words)).splitlines()[-1:] == str(understood(command[4:])).splitlines()[-1:]


@pytest.mark.parametrize(
    "words", ["", "--config c.yaml --host 0.0.0.0 --port=50051", "--provider a=python:t.py --show-config --model m:n"]
)
def test_plain_flags_are_straight(words: str) -> None:
    assert serving.plain_flags(["serve", *words.split()]) is not None


@pytest.mark.parametrize(
    "words", ["--help", "-h", "--port x", "--port 65536", "--port", "--provider a", "--host --port 1", "-- --port 1"]
)
def test_what_the_command_has_texts_for_is_left_to_it(words: str) -> None:
    assert serving.plain_flags(["serve", *words.split()]) is None


def test_completion_and_missing_packages_are_left_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving.plain_flags(["serve"]) == {}
    monkeypatch.setenv("_AUTOGLM_COMPLETE", "complete_bash")
    assert serving.plain_flags(["serve"]) is None
    monkeypatch.delenv("_AUTOGLM_COMPLETE")
    monkeypatch.setattr(local, "_NEEDED", ("no_such_package",))
    assert serving.plain_flags(["serve"]) is None


def test_an_embedded_server_that_does_not_make_way_is_told(tmp_path: Path) -> None:
    program = (
        "import os, sys; from autoglm import cli, local, errors\n"
        "def refuse(folder, *, progress):\n"
        "    progress(f'ending \\x1b[1m {folder}')\n"
        "    raise errors.UnavailableError('it did not end', reason='UNAVAILABLE')\n"
        "local.make_way = refuse\n"
        "sys.argv[1:] = ['serve', '--data-dir', 'd']\n"
        "sys.exit(cli.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[0] == "ending \\u001b[1m d"
    assert "autoglm: it did not end" in done.stderr.lower()
