"""Settings of secrets, OpenAPI documents and http: the short forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_server.configuration import ConfigurationError, load


def test_the_short_forms(tmp_path: Path) -> None:
    text = """
secrets:
  a: env:A_TOKEN
  b: {source: "file:/run/b", tools: ["mail.*"]}
providers: {pets: openapi:pets.yaml}
openapi: {pets: {auth: {key: secret://a, basic: "ann:secret://b"}, effects: {"POST /search": READ_ONLY}}}
"""
    settings = load(file=_file(tmp_path, text), environment={"AUTOGLM_HTTP__ALLOW": "a.example, *.b.example:8443"})
    assert {name: (secret.source, secret.tools) for name, secret in settings.secrets.items()} == {
        "a": ("env:A_TOKEN", ("*",)),
        "b": ("file:/run/b", ("mail.*",)),
    }
    assert settings.openapi["pets"].auth == {"key": "secret://a", "basic": "ann:secret://b"}
    assert settings.http.allow == ("a.example", "*.b.example:8443")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("secrets: {a: the-value-itself}", "secrets.a.source"),
        ("providers: {pets: openapi:p}\nopenapi: {pets: {auth: {key: hunter2}}}", "by reference"),
        ("providers: {pets: openapi:p}\nopenapi: {pets: {headers: {X-Api-Key: hunter2}}}", "by reference"),
        ("openapi: {pets: {}}", "no provider with an openapi: URI"),
        ("providers: {pets: openapi:p}\nopenapi: {pets: {effects: {a: SAFE}}}", "effects"),
        ("providers: {pets: openapi:p}\nopenapi: {pets: {sever: x}}", "openapi.pets.sever is not a setting"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load(file=_file(tmp_path, text), environment={})


@pytest.mark.parametrize(
    "text", ["secrets: {a: hunter2hunter2}", "providers: {p: openapi:p}\nopenapi: {p: {auth: {key: hunter2hunter2}}}"]
)
def test_a_secret_in_the_wrong_place_is_not_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(file=_file(tmp_path, text), environment={})

    assert "hunter2" not in str(raised.value)
    assert "config.yaml:" in str(raised.value)


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file
