"""The README does what it says: its shell blocks run, its Python runs, and its transcripts are what is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm import local

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    """Give the blocks of a language, without those that say they are not to be run."""
    found = _BLOCK.finditer((ROOT / name).read_text())
    return [
        one["text"]
        for one in found
        if one["language"] == language and not (one["mark"] or "").startswith(("ci:", "test: skip"))
    ]


def normal(text: str) -> list[str]:
    """Give the lines with ids, times and durations made equal, in an order that does not depend on which was faster."""
    text = re.sub(r"\b01[0-9a-z]{24}\b", "PLAN", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+09:00|Z)", "TIME", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "CLOCK", text)
    text = re.sub(r'"\d\d:\d\d"|\b\d\d:\d\d on \w+, \d{4}-\d\d-\d\d', "NOW", text)
    text = re.sub(r'"\d{4}-\d\d-\d\d"', "DAY", text)
    text = re.sub(r'"weekday": "\w+", "weekday_zh": "\w+"', "WEEKDAY", text)
    text = re.sub(r"\b\d+(\.\d+)? (ms|s)\b", "DURATION", text)
    lines = (line for line in text.splitlines() if not line.startswith("starting the embedded server"))
    return sorted(lines)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    folder = tmp_path / "data"
    scripts = str(Path(sys.executable).parent)
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("AUTOGLM_")},
        "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        "AUTOGLM_DATA_DIR": str(folder),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    server = local.read(folder)
    if server is not None:
        os.kill(server.pid, signal.SIGTERM)


def shell(script: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(90)
def test_shell_blocks_run(tmp_path: Path, environment: dict[str, str]) -> None:
    scripts = blocks("README.md", "sh")
    assert len(scripts) == 2
    printed = "".join(shell(script, tmp_path, environment) for script in scripts)
    assert '"planSucceeded"' in printed
    assert "THE ANSWER IS 42" in printed
    assert "18446744073709551616" in printed


@pytest.mark.timeout(90)
def test_transcripts_are_what_is_printed(tmp_path: Path, environment: dict[str, str]) -> None:
    transcripts = blocks("README.md", "console")
    assert transcripts
    for transcript in transcripts:
        for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if "--state waiting" in command:
                command = f'until [ -n "$({command} 2>/dev/null)" ]; do :; done; {command}'

            assert normal(shell(command, tmp_path, environment)) == normal(expected)


def test_control_another_transcript_is_noticed() -> None:
    told = blocks("README.md", "console")[0]
    assert normal(told.replace("231.150084", "231.2")) != normal(told)
    assert normal(told.replace("step2", "step9")) != normal(told)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_python_blocks_run(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    for number, text in enumerate(blocks(name, "python")):
        script = tmp_path / f"block{number}.py"
        script.write_text(text)
        assert shell(f"{sys.executable} {script}", tmp_path, environment)


@pytest.mark.timeout(90)
def test_the_tool_of_the_readme_is_served(tmp_path: Path, environment: dict[str, str]) -> None:
    (tool,) = [text for text in blocks("README.md", "python") if "@autoglm.tool" in text]
    (tmp_path / "weather.py").write_text(tool)
    assert "weather.rain" in shell("autoglm tools --provider weather=python:weather.py", tmp_path, environment)


@pytest.mark.timeout(90)
def test_the_chinese_commands_run(tmp_path: Path, environment: dict[str, str]) -> None:
    request = re.search(r'autoglm run ("2480的15%[^"]*")', (ROOT / "README.zh-CN.md").read_text())
    assert request is not None
    assert "231.15" in shell(f"autoglm run {request[1]}", tmp_path, environment)
    for script in blocks("README.zh-CN.md", "sh"):
        if "venv" not in script:
            assert "等于 20" in shell(script, tmp_path, environment)
