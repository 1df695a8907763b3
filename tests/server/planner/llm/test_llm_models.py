"""Which model, where, with which key; what a server that starts says of it; and what is not imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import PlanOptions
from autoglm_server.__main__ import _flags, parser
from autoglm_server.configuration import load
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm import planner as module
from autoglm_server.planner.llm.backend import make_backend
from autoglm_server.planner.llm.failures import masked
from autoglm_server.planner.llm.models import (
    PROVIDERS,
    Access,
    ModelName,
    ModelNameError,
    find_access,
    found_in,
    parse_model,
)
from autoglm_server.planners import make_planners
from autoglm_server.settings import PlannerSettings, Settings

KEY = "sk-canary-77aa0c3355"
ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("text", "provider", "read"),
    [
        ("openai:gpt-5-mini", "", ModelName("openai", "gpt-5-mini")),
        ("ollama:qwen3:8b", "", ModelName("ollama", "qwen3:8b")),
        ("qwen3:8b", "ollama", ModelName("ollama", "qwen3:8b")),
        ("vllm:Qwen/Qwen3-8B", "", ModelName("vllm", "Qwen/Qwen3-8B")),
        ("openai-compatible:m@http://h:1/v1", "", ModelName("openai-compatible", "m", "http://h:1/v1")),
        ("openai-compatible:m", "", ModelName("openai-compatible", "m")),
    ],
)
def test_names(text: str, provider: str, read: ModelName) -> None:
    assert parse_model(text, provider) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "provider:name"),
        ("gpt-5", "one of openai, anthropic"),
        ("opnai:gpt-5", "one of openai, anthropic"),
        ("openai:", "write openai:NAME"),
        ("openai-compatible:m@", "NAME@BASE_URL"),
        ("openai-compatible:m@ftp://h", "http://"),
        ("openai-compatible:m@http://user:secret@h/v1", "no user, password"),
        ("openai-compatible:m@http://h/v1?key=secret", "no user, password or query"),
        ("openai-compatible:m@http://[h", "cannot be read"),
        ("x" * 300, "up to 256"),
    ],
)
def test_names_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ModelNameError) as caught:
        parse_model(text)

    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_keys_and_addresses(tmp_path: Path) -> None:
    glm = parse_model("glm:glm-4.7")
    assert find_access(glm, {"ZAI_API_KEY": "k"}) == Access("https://api.z.ai/api/paas/v4", "k", "ZAI_API_KEY")
    assert find_access(glm, {"ZHIPUAI_API_KEY": "k"}).base_url == "https://open.bigmodel.cn/api/paas/v4"
    assert find_access(glm, {"ZHIPUAI_API_KEY": "k"}, base_url="http://proxy/v4").base_url == "http://proxy/v4"
    assert find_access(glm, {"MINE": "m", "ZAI_API_KEY": "k"}, key_variable="MINE").key == "m"

    file = tmp_path / "key"
    file.write_text(f" {KEY}\n")
    access = find_access(glm, {"ZAI_API_KEY": "k"}, key_file=file)
    assert (access.key, access.key_source) == (KEY, f"the file {file}")
    assert KEY not in repr(access)

    ollama = parse_model("ollama:qwen3")
    assert find_access(ollama, {}) == Access("http://localhost:11434/v1", "", "")
    assert find_access(ollama, {"OLLAMA_BASE_URL": "http://gpu:11434/v1"}).base_url == "http://gpu:11434/v1"


@pytest.mark.parametrize(
    ("model", "environment", "options", "words"),
    [
        ("openai:gpt-5", {}, {}, "set OPENAI_API_KEY, or planner.api_key_file"),
        ("openai:gpt-5", {"OPENAI_API_KEY": "  "}, {}, "set OPENAI_API_KEY"),
        ("google:gemini", {}, {}, "set GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("ollama:x", {}, {"key_variable": "MINE"}, "set MINE"),
        ("openai:gpt-5", {"OPENAI_API_KEY": f"{KEY}\nx"}, {}, "more than a key"),
        ("openai:gpt-5", {"OPENAI_API_KEY": f"“{KEY}”"}, {}, "more than a key"),
        ("openai:gpt-5", {}, {"key_file": Path("/nowhere/key")}, "cannot be read"),
        ("openai-compatible:m", {}, {}, "set planner.base_url"),
    ],
)
def test_keys_that_are_not_there(model: str, environment: dict[str, str], options: Any, words: str) -> None:
    with pytest.raises(ModelNameError) as caught:
        find_access(parse_model(model), environment, **options)

    assert words in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content, words in ((b"", "is empty"), (b"x" * 10_000, "longer than"), (b"\xff\xfe", "more than a key")):
        file.write_bytes(content)
        with pytest.raises(ModelNameError, match=words):
            find_access(parse_model("openai:gpt-5"), {}, key_file=file)


def test_the_environment_says_what_there_is() -> None:
    assert found_in({"OPENAI_API_KEY": "k", "ZHIPUAI_API_KEY": "k", "HOME": "/"}) == [
        ("openai", "OPENAI_API_KEY"),
        ("glm", "ZHIPUAI_API_KEY"),
    ]


def problems(options: LlmOptions, environment: dict[str, str], model: str) -> str:
    found = LlmPlanner(options, environment).check(PlanOptions(model=model))
    assert all(one.field in ("options.model", "options.planner") for one in found)
    return "; ".join(one.description for one in found)


def test_a_plan_may_name_a_model_and_never_an_address() -> None:
    own = "openai-compatible:m@http://inside/v1"
    options, environment = LlmOptions(model=own), {"OPENAI_API_KEY": KEY}
    assert problems(options, environment, "") == ""
    assert problems(options, environment, own) == ""
    assert problems(options, environment, "other-name") == ""
    assert problems(options, environment, "openai:gpt-5") == ""
    assert "may not say where" in problems(options, environment, "openai-compatible:m@http://evil/v1")
    assert "set its planner.model (AUTOGLM_" in problems(
        LlmOptions(), environment, "openai-compatible:m@http://evil/v1"
    )
    assert "NAME@BASE_URL" not in problems(LlmOptions(), environment, "openai-compatible:m")
    assert "set ANTHROPIC_API_KEY" in problems(options, environment, "anthropic:claude")
    assert "set planner.model" in problems(LlmOptions(), environment, "")

    bounded = LlmOptions(model="openai:gpt-5", models=("openai:gpt-5*",))
    assert problems(bounded, environment, "gpt-5-mini") == ""
    assert "not among planner.models" in problems(bounded, environment, "o9-pro")
    assert "not among planner.models" in problems(bounded, environment, "ollama:x")


def test_the_address_and_key_of_one_provider_never_go_to_another() -> None:
    options = LlmOptions(model="openai:gpt-5", base_url="http://proxy/v1", key_variable="MINE")
    planner = LlmPlanner(options, {"MINE": KEY, "ANTHROPIC_API_KEY": "other"})
    name, access = planner._reach("anthropic:claude")
    assert (name.provider, access.base_url, access.key) == ("anthropic", "https://api.anthropic.com", "other")


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_every_provider_can_be_made(provider: str) -> None:
    backend = make_backend(ModelName(provider, "m"), Access("http://127.0.0.1:9/v1", KEY, "X"))
    assert KEY not in repr(backend)
    asyncio.run(backend.close())


# --- the server


def test_the_server_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(**settings: Any) -> str:
        with pytest.raises(ValueError, match=r".+") as caught:
            make_planners(PlannerSettings(**settings), {})

        return str(caught.value)

    assert "planner.model" in why(kind="llm")
    assert "set OPENAI_API_KEY" in why(kind="llm", model="openai:gpt-5")
    assert "provider:name" in why(kind="llm", model="gpt-5")
    assert "this server has: llm, rules" in why(kind="nope")
    assert "no user, password" in why(kind="llm", model="ollama:x", base_url="http://u:p@h/v1")
    monkeypatch.setattr("autoglm_server.planners.installed", lambda: False)
    assert "pip install 'open-autoglm[server,llm]'" in why(kind="llm", model="openai:gpt-5")


@pytest.mark.parametrize(
    ("arguments", "kind", "model"),
    [
        ([], "rules", ""),
        (["--model", "ollama:x"], "llm", "ollama:x"),
        (["--model", "ollama:x", "--planner", "rules"], "rules", "ollama:x"),
    ],
)
def test_the_flag_of_a_model_implies_the_planner(arguments: list[str], kind: str, model: str) -> None:
    settings = load(flags=_flags(parser().parse_args(arguments)))
    assert (settings.planner.kind, settings.planner.model) == (kind, model)


def test_without_the_extra_rules_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_server.planners.installed", lambda: False)
    assert list(make_planners(PlannerSettings(), {})) == ["rules"]
    monkeypatch.setattr(module, "installed", lambda: False)
    found = LlmPlanner(LlmOptions(model="ollama:x"), {}).check(PlanOptions())
    assert "pip install" in found[0].description


def test_settings_reach_the_planner() -> None:
    settings = Settings.model_validate(
        {
            "planner": {
                "kind": "llm",
                "model": "ollama:qwen3",
                "models": "ollama:*, openai:gpt-5",
                "profile": "text",
                "temperature": 0.5,
                "stall_timeout": "5s",
            }
        }
    )
    planner = make_planners(settings.planner, {})["llm"]
    assert isinstance(planner, LlmPlanner)
    assert planner.describe() == "ollama:qwen3 at http://localhost:11434/v1, no key"
    options = planner._options
    assert options.models == ("ollama:*", "openai:gpt-5")
    assert (options.profile, options.temperature, options.stall_timeout.total_seconds()) == ("text", 0.5, 5.0)


def test_nothing_heavy_is_imported_before_a_model_is_asked() -> None:
    code = (
        "import sys; import autoglm_server.app; from autoglm_server.planners import make_planners;"
        "from autoglm_server.settings import PlannerSettings; p = make_planners(PlannerSettings(), {});"
        "assert 'llm' in p; heavy = {'pydantic_ai', 'openai', 'anthropic', 'httpx2', 'google.genai'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- masking


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdEFGH1234",
        "Authorization: Bearer abc.def",
        "token=abcdef rest",
        '{"api_key": "hunter2hunter2"}',
        "AIzaSyA1234567890abcdefg",
        "x" * 40,
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    shown = masked(text)
    assert "…" in shown
    for secret in ("abcdEFGH1234", "abc.def", "abcdef", "hunter2hunter2", "SyA1234567890", "x" * 40):
        assert secret not in shown


def test_plain_sentences_stay() -> None:
    text = "The model `glm-4.7` does not exist; max_tokens must be below 4096."
    assert masked(text) == text
