"""Settings: their sources in order, every fault at once with its source, durations and sizes, secrets, the reference."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_server.configuration import (
    ConfigurationError,
    documented,
    fields,
    load,
    mask_uri,
    render_effective,
    render_reference,
)
from autoglm_server.settings import Settings, format_duration, parse_duration

ROOT = Path(__file__).resolve().parents[2]


def faults(file: Path | None = None, **sources: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(file=file, **sources)

    return caught.value.faults


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "autoglm.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load()

    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 50051, 1)
    assert (settings.server.timeout, settings.server.drain) == (timedelta(seconds=30), timedelta(seconds=20))
    plan = settings.plan
    assert (plan.max_steps, plan.enable_tool_call, plan.max_rounds, plan.max_parallel_steps) == (10, True, 5, 32)
    assert (plan.timeout, plan.waiting_timeout) == (timedelta(minutes=10), None)
    assert (settings.scheduler.max_running_plans, settings.scheduler.max_running_calls) == (1000, 256)
    assert (settings.planner.kind, settings.journal.url, settings.providers, settings.plugins) == ("rules", "", {}, ())
    assert settings.workspace_dir == settings.data_dir / "workspace"


def test_each_source_goes_over_the_one_before(config: Any) -> None:
    file = config("server: {port: 1, host: file}\nplan: {max_rounds: 7}\nlog: {level: debug}\n")
    environment = {"AUTOGLM_SERVER__PORT": "2", "AUTOGLM_PLAN__MAX_STEPS": "3", "HOME": "/x"}
    settings = load(file=file, environment=environment, flags={"server.port": ("--port", "4")})

    assert (settings.server.port, settings.server.host) == (4, "file")
    assert (settings.plan.max_steps, settings.plan.max_rounds) == (3, 7)
    assert settings.log.level == "debug"
    assert load(file=file, environment=environment).server.port == 2
    assert load(file=file).server.port == 1


def test_the_environment_reads_text(tmp_path: Path) -> None:
    environment = {
        "AUTOGLM_DATA_DIR": str(tmp_path),
        "AUTOGLM_PROVIDERS__weather": "grpc://host:1",
        "AUTOGLM_PLUGINS": '[{"name": "a", "options": {"n": 1}}]',
        "AUTOGLM_PLANNER__MODEL": "0123",
        "AUTOGLM_PLAN__ENABLE_TOOL_CALL": "false",
        "AUTOGLM_PLAN__TIMEOUT": "1.5h",
        "AUTOGLM_LIMITS__OUTPUT": "512KiB",
        "AUTOGLM_LOG__LEVEL": "",
        "AUTOGLM_ADDRESS": "for the client",
    }
    settings = load(environment=environment)

    assert settings.data_dir == tmp_path
    assert settings.providers == {"weather": "grpc://host:1"}
    assert settings.plugins[0].options == {"n": 1}
    assert settings.planner.model == "0123"
    assert not settings.plan.enable_tool_call
    assert settings.plan.timeout == timedelta(minutes=90)
    assert settings.limits.output == 512 << 10
    assert settings.log.level == "info"


def test_every_fault_is_told_at_once_with_its_source(config: Any) -> None:
    file = config("server:\n  port: 99999\n  hots: x\nplan:\n  timeout: soon\n")
    told = faults(
        file,
        environment={"AUTOGLM_PLAN__MAX_STEP": "3", "AUTOGLM_LIMITS__STEPS": "0"},
        flags={"log.level": ("--log-level", "loud")},
    )
    text = "\n".join(told)

    assert len(told) == 6
    assert f"{file}:2: server.port = 99999" in text
    assert f"{file}:3: server.hots is not a setting; did you mean server.host (AUTOGLM_SERVER__HOST)?" in text
    assert f"{file}:5: plan.timeout = 'soon': write a number and a unit" in text
    assert "AUTOGLM_PLAN__MAX_STEP: plan.max_step is not a setting; did you mean plan.max_steps" in text
    assert "AUTOGLM_LIMITS__STEPS: limits.steps = '0'" in text
    assert "--log-level: log.level = 'loud'" in text


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("AUTOGLM_SEVER__PORT", "server"),
        ("AUTOGLM_PORT", "server.port"),
        ("AUTOGLM_MAX_STEPS", "plan.max_steps"),
        ("AUTOGLM_SERVER__MAX_ROUNDS", "plan.max_rounds"),
        ("AUTOGLM_DATADIR", "data_dir"),
    ],
)
def test_the_nearest_known_key_is_named(key: str, meant: str) -> None:
    (told,) = faults(environment={key: "1"})

    assert told.startswith(f"{key}: ")
    assert f"did you mean {meant} (" in told


def test_the_keys_of_an_entry_are_named(config: Any) -> None:
    file = config("tools:\n  - {mtch: mine.*, rate: 1/s}\n  - {match: a.*, zzz: 1}\nopenapi:\n  shop: {severs: x}\n")
    keys = "match, timeout, requires_approval, rate, concurrency, cache, redact"

    assert faults(file) == [
        f"{file}:1: tools.0.match is missing",
        f"{file}:1: tools.0.mtch is not a setting; did you mean match?",
        f"{file}:1: tools.1.zzz is not a setting; there are: {keys}",
        f"{file}:5: openapi.shop.severs is not a setting; did you mean server?",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "wanted"),
    [
        ("AUTOGLM_PLUGINS", "[{name: hello", "not YAML: "),
        ("AUTOGLM_PLUGINS", "hello", "plugins = 'hello': write a list, as in [a, b]"),
        ("AUTOGLM_PROVIDERS", "[a]", "providers = ['a']: write a mapping, as in {key: value}"),
    ],
)
def test_what_is_no_list_or_mapping_in_a_variable_is_told_as_such(variable: str, text: str, wanted: str) -> None:
    (told,) = faults(environment={variable: text})

    assert told.startswith(f"{variable}: {wanted}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("server: [", "not YAML"),
        ("- a\n- b\n", "must be a mapping of sections"),
        ("server:\n  port: 1\n  port: 2\n", ":3: server.port is there twice"),
        ("server: 5\n", ":1: server = 5"),
        ("providers: {a/b: x}\n", "'a/b' is no name"),
        ("server: {workers: 2}\n", "server.workers = 2"),
        ("x: &a [*a]\n", "x is not a setting"),
        ("plan: {timeout: !foo bar}\n", ":1: plan.timeout cannot be read: could not determine a constructor"),
        (
            "server: {host: 2026-13-45}\n",
            ":1: server.host cannot be read: month must be in 1..12; put a text in quotes",
        ),
        ("plan: {? [a] : b}\n", ":1: a key must be the name of a setting"),
        ("plan: {timeout: .nan}\n", ":1: plan.timeout = nan: write a number and a unit"),
    ],
)
def test_a_file_that_is_wrong(config: Any, text: str, wanted: str) -> None:
    assert wanted in "\n".join(faults(config(text)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert faults(tmp_path / "no.yaml")[0].endswith(
        "cannot be read: No such file or directory; name another with --config"
    )
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    assert "larger than 1MiB" in faults(tmp_path / "large.yaml")[0]
    (tmp_path / "latin.yaml").write_bytes(b"log: {level: \xff}")
    assert "cannot be read" in faults(tmp_path / "latin.yaml")[0]


def test_an_empty_file_changes_nothing(config: Any) -> None:
    assert load(file=config("")) == load()
    assert load(file=config("server: {}\nproviders: {}\n")) == load()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().server.port = 1


@given(st.integers(1, 10**10).map(lambda milliseconds: timedelta(milliseconds=milliseconds)))
def test_a_duration_is_read_as_it_is_written(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "1x", "one", "-5s", "5 5s", "1e999", "nan", "9999999999999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigurationError):
        load(flags={"plan.timeout": ("--timeout", text)})


def test_passwords_are_shown_nowhere() -> None:
    uri = "mcp+http://user:hunter2@host/path?key=hunter2&b=hunter2"
    shown = render_effective(
        load(flags={"providers.a": ("--provider", uri), "providers.b": ("--provider", "python:x.py")})
    )

    assert "hunter2" not in shown
    assert "user:********@host/path" in shown
    assert "python:x.py" in shown
    (told,) = faults(flags={"log.level": ("--log-level", uri)})
    assert "hunter2" not in told


def test_only_what_is_secret_is_masked() -> None:
    """The control of the test above."""
    for uri in ("grpc://host:50051", "sqlite:///a/b", "python:tools.py", "user:pass", "openapi:http://host/x.json"):
        assert mask_uri(uri) == uri


def test_what_is_shown_can_be_loaded_again(config: Any) -> None:
    settings = load(
        flags={"plan.timeout": ("--t", "90s"), "limits.output": ("--o", "2KiB"), "providers.a": ("--p", "b:c")}
    )
    shown = render_effective(settings)

    assert yaml.safe_load(shown)["plan"]["timeout"] == "90s"
    assert load(file=config(shown)) == settings


def test_every_setting_is_documented() -> None:
    assert not [path for path, _, section in fields() if not documented(section, path[-1]).endswith(".")]
    assert not [name for name in Settings.model_fields if f"`{name}" not in render_reference()]


def test_the_reference_is_current() -> None:
    written = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

    assert written == render_reference(), "python -m autoglm_server.configuration > docs/configuration.md"
