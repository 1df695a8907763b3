"""What a new configuration changes and what it does not, and files that are loaded anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoglm_server.configuration import load
from autoglm_server.reload import MAY_CHANGE, refused, taken
from autoglm_server.settings import Section, Settings
from autoglm_server.tools.loading import LoadError, is_changed, load_file, tools_of


def settings(**flags: Any) -> Settings:
    return load(flags={key.replace("__", "."): ("test", value) for key, value in flags.items()})


@pytest.mark.parametrize(
    ("changed", "is_taken"),
    [
        ({"log__level": "debug"}, True),
        ({"plan__max_steps": 3, "plan__timeout": "5m"}, True),
        ({"log__format": "json"}, False),
        ({"server__port": 1, "server__host": "::1"}, False),
        ({"journal__url": "memory:"}, False),
        ({"data_dir": "/elsewhere"}, False),
        ({"workspace": "/elsewhere"}, False),
        ({"limits__output": "2KiB"}, False),
        ({"planner__model": "ollama:qwen3"}, False),
    ],
)
def test_what_may_change_and_what_may_not(*, changed: dict[str, Any], is_taken: bool) -> None:
    before, wanted = settings(), settings(**changed)
    names = sorted(key.replace("__", ".") for key in changed)

    assert sorted(taken(before, wanted)) == (names if is_taken else [])
    assert sorted(refused(before, wanted)) == ([] if is_taken else names)
    assert refused(before, before) == taken(before, before) == []


def test_every_section_is_decided_on() -> None:
    assert {key.partition(".")[0] for key in MAY_CHANGE} <= set(Settings.model_fields)
    providers = settings(), settings(providers={"p": "python:x.py"}, plugins=[{"name": "a"}], tools=[{"match": "*"}])
    assert refused(*providers) == taken(*providers) == []  # these have lines of their own
    assert all(isinstance(getattr(settings(), key.partition(".")[0]), Section) for key in MAY_CHANGE if "." in key)


TOOL = """
import autoglm
@autoglm.tool
def give() -> str:
    '''Give.'''
    return {says!r}
"""


def test_a_file_is_loaded_anew_when_its_text_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    file.write_text(TOOL.format(says="a"))
    first = load_file(file)
    assert load_file(file, fresh=True) is first
    assert not is_changed(file)

    file.write_text(TOOL.format(says="b"))  # the same size, within the same second
    assert is_changed(file)
    assert load_file(file) is first
    second = load_file(file, fresh=True)
    assert second is not first
    assert [tools_of(module)[0]() for module in (first, second)] == ["a", "b"]
    assert not is_changed(file)


def test_what_was_loaded_stays_when_the_new_text_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    file.write_text(TOOL.format(says="a"))
    first = load_file(file)
    file.write_text("1 / 0")

    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load_file(file, fresh=True)

    assert load_file(file) is first
    file.unlink()
    assert is_changed(file)
