from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.configuration import mask_uri
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.providers.mcp.address import Command, read_command, read_endpoint
from autoglm_server.tools.providers.mcp.lines import END_BYTES, Lines, LongLine
from autoglm_server.tools.secrets import Secrets, Source

OWN = {"PATH": "/usr/bin:/bin", "TOKEN": "canary", "AUTOGLM_TOKEN": "x"}


def test_a_command_is_split_as_a_shell_does_and_never_expanded() -> None:
    command = read_command("it", """A=1 B='two words' C=$TOKEN sh -c 'echo $TOKEN; ls *' "$TOKEN" """, OWN)

    assert command.words == ("sh", "-c", "echo $TOKEN; ls *", "$TOKEN")
    assert command.environment(OWN) == {"PATH": "/usr/bin:/bin", "A": "1", "B": "two words", "C": "canary"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'sh", "cannot be split"),
        ("A=1", "there is no command"),
        ("''", "there is no command"),
        ("no-such-command-here x", "'no-such-command-here'"),
        ("A=$NOT_THERE sh", "NOT_THERE"),
        ("sh a\0b", "NUL"),
    ],
)
def test_a_command_that_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="provider it: ") as caught:
        read_command("it", text, OWN)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http:///path", "write mcp"),
        ("http://[::1/path", "cannot be read"),
        ("http://host:99999/", "cannot be read"),
        ("https://user:password@host/", "no user or password"),
        ("https://host/#token=$TOKEN", "'token'"),
        ("https://host/#bearer=canary", "not the token itself"),
        ("http://host/#bearer=$TOKEN", "plain http"),
        ("https://host/#bearer=$NOT_THERE", "NOT_THERE"),
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_a_secret(url: str, told: str) -> None:
    with pytest.raises(ValueError, match="provider it: ") as caught:
        read_endpoint("it", url, OWN)

    assert told in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "password@" not in str(caught.value)


def test_a_token_is_named_and_not_held() -> None:
    endpoint = read_endpoint("it", "http://127.0.0.1:1/mcp?a=b#bearer=$TOKEN", OWN)

    assert (endpoint.url, endpoint.bearer) == ("http://127.0.0.1:1/mcp?a=b", "$TOKEN")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mcp:sh -c A=b", "mcp:sh -c A=b"),
        ("mcp:A=canary B='can ary' sh -c C=d", "mcp:A=******** B=******** sh -c C=d"),
        ('mcp:A=x"can ary"y sh', "mcp:A=******** sh"),
        ("mcp:A=$B C=secret://d sh", "mcp:A=$B C=secret://d sh"),
        ("mcp+https://host/mcp?key=canary#bearer=$B", "mcp+https://host/mcp?key=********#bearer=$B"),
    ],
)
def test_a_value_in_a_uri_is_not_shown(uri: str, shown: str) -> None:
    assert mask_uri(uri) == shown


def test_secrets_are_named_and_not_held() -> None:
    secrets = Secrets({"token": Source("env:TOKEN")}, OWN)

    command = read_command("it", "A=secret://token sh", OWN, secrets.expand)
    endpoint = read_endpoint("it", "https://host/#bearer=secret://token", OWN, secrets.expand)

    assert command.variables == (("A", "secret://token"),)
    assert command.environment(OWN, secrets.expand)["A"] == "canary"
    assert endpoint.bearer == "secret://token"
    assert endpoint.token(OWN, secrets.expand) == "canary"
    with pytest.raises(ValueError, match="no secret 'other'"):
        read_command("it", "A=secret://other sh", OWN, secrets.expand)


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("autoglm_server.tools.providers.mcp.")]:
        monkeypatch.delitem(sys.modules, module)

    monkeypatch.setitem(sys.modules, "mcp", None)
    for uri in ("mcp:sh", "mcp+http://localhost/mcp"):
        with pytest.raises(ValueError, match=r"pip install 'open-autoglm\[mcp\]'"):
            open_provider("it", uri)


def test_variables_of_the_server_are_not_inherited() -> None:
    assert Command(("sh",)).environment(OWN) == {"PATH": "/usr/bin:/bin"}


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    taken = Lines(20)

    found = [line for piece in pieces for line in taken.feed(piece)]

    assert found == [line if len(line) <= 20 else LongLine(line, line, len(line)) for line in lines]


@given(st.lists(st.binary(min_size=1, max_size=400).map(lambda data: data.replace(b"\n", b"-")), min_size=8))
def test_of_a_long_line_both_ends_are_kept(pieces: list[bytes]) -> None:
    taken, whole = Lines(7), b"".join(pieces)

    (line,) = [line for piece in [*pieces, b"\n"] for line in taken.feed(piece)]

    assert line == LongLine(whole[:END_BYTES], whole[-END_BYTES:], len(whole))
