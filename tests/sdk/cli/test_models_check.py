"""What doctor says of planners: asked of the installed server, in its own words, and never a key."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from autoglm.cli import doctor, models
from autoglm.cli.session import Session
from autoglm.model import JsonObject
from tests.sdk.cli.scripted import ScriptedClient

KEY = "sk-canary-55e1"


def ask(**environment: str) -> JsonObject:
    kept = {
        name: value for name, value in os.environ.items() if not name.endswith("_API_KEY") and "AUTOGLM" not in name
    }
    said = models.ask(kept | environment)
    assert said is not None
    assert KEY not in repr(said)
    return said


def test_without_a_key_rules_plan() -> None:
    well, detail, remedy = models.verdict(ask())
    assert (well, detail, remedy) == (True, "rules; the environment has no key of a model", "")


def test_a_key_is_found() -> None:
    well, detail, _ = models.verdict(ask(DEEPSEEK_API_KEY=KEY))
    assert well
    assert detail == (
        "rules; there is a key for deepseek (DEEPSEEK_API_KEY): autoglm run --model deepseek:deepseek-flash would plan with it"
    )


def test_the_configured_model_is_told(tmp_path: Path) -> None:
    file = tmp_path / "autoglm.yaml"
    file.write_text("planner: {kind: llm, model: 'openai:gpt-5-mini'}\n")
    well, detail, _ = models.verdict(ask(OPENAI_API_KEY=KEY, AUTOGLM_CONFIG=str(file)))
    assert well
    assert detail == "llm: openai:gpt-5-mini at https://api.openai.com/v1, the key in OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AUTOGLM_PLANNER__KIND": "llm", "AUTOGLM_PLANNER__MODEL": "openai:x"}, "set OPENAI_API_KEY"),
        ({"AUTOGLM_PLANNER__KIND": "llm"}, "set planner.model"),
        ({"AUTOGLM_PLANNER__KINDS": "llm"}, "is not a setting"),
    ],
)
def test_what_is_missing_is_told(environment: dict[str, str], words: str) -> None:
    well, detail, remedy = models.verdict(ask(**environment))
    assert not well
    assert words in detail
    assert remedy


def test_a_key_without_the_extra() -> None:
    said = {"kind": "rules", "installed": False, "extra": "pip install x", "model": ""}
    well, detail, _ = models.verdict(said | {"found": [{"provider": "openai", "variable": "OPENAI_API_KEY"}]})
    assert well
    assert "pip install x would let it plan" in detail


def test_a_model_whose_server_is_away_is_noticed_without_asking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        address = f"http://127.0.0.1:{port}/v1"
        said = ask(AUTOGLM_PLANNER__KIND="llm", AUTOGLM_PLANNER__MODEL=f"openai-compatible:x@{address}")
        assert said["address"] == address
        assert models.unreachable(said) == f"127.0.0.1:{port} accepts no connection: Connection refused"

        listening.listen()
        assert models.unreachable(said) == ""

    assert models.unreachable(ask()) == ""


def test_behind_a_proxy_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert models.unreachable({"address": "https://model.invalid/v1"}) == ""


def test_doctor_warns_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        models, "ask", lambda environment: {"kind": "llm", "model": "m", "address": "http://127.0.0.1:9"}
    )
    monkeypatch.setattr(models, "unreachable", lambda said: f"{said['address']} is away")
    check = doctor.planner(Session(connect=lambda target, progress: ScriptedClient()))
    assert (check.verdict, check.detail) == (doctor.Verdict.WARNING, "llm: m; http://127.0.0.1:9 is away")
    assert "planner.base_url" in check.remedy


def test_a_server_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "COMMAND", ("/nowhere/python",))
    assert models.ask({}) is None
