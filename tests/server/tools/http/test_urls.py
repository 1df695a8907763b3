"""URLs and hosts: read strictly, in one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.tools.http.errors import RefusedError
from autoglm_server.tools.http.hosts import HostRule, HostRules
from autoglm_server.tools.http.urls import Url, joined, parse_url


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com.:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:8080/a b".replace(" ", "%20"), "http://example.com:8080/a%20b"),
        ("https://example.com/ü?q=ß", "https://example.com/%C3%BC?q=%C3%9F"),
        ("https://[2606:4700::1111]/x", "https://[2606:4700::1111]/x"),
        ("https://[::ffff:8.8.8.8]/", "https://8.8.8.8/"),
        ("https://example.com?q=1", "https://example.com/?q=1"),
    ],
)
def test_urls_have_one_form(text: str, read: str) -> None:
    assert str(parse_url(text)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "/relative",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: evil",
        "https://example.com\t/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:8a/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://1.2.3/",
        "https://1.2.3.4.5/",
        "https://127.0.0.1.0x1/",
        "https://256.1.1.1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://münchen.example/",
        "https://%31%32%37.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[1.2.3.4]/",
        "https://exam*ple.com/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/" + "a" * 9000,
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_url(text)


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,30}(/.*)?", fullmatch=True))
def test_every_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except RefusedError:
        return

    assert parse_url(str(url)) == url
    assert str(url).isascii()


def test_a_location_is_read_from_where_it_was_given() -> None:
    base = parse_url("https://a.example/x/y?z")
    assert str(joined(base, "../w")) == "https://a.example/w"
    assert str(joined(base, "//b.example/c")) == "https://b.example/c"
    with pytest.raises(RefusedError):
        joined(base, "https://b.example\\@c.example/")


@pytest.mark.parametrize(
    ("rule", "url", "fits"),
    [
        ("api.example.com", "https://api.example.com/x", True),
        ("api.example.com", "https://api.example.com:8443/", False),
        ("api.example.com", "http://api.example.com/", False),
        ("api.example.com", "https://evil-api.example.com/", False),
        ("api.example.com", "https://api.example.com.evil.com/", False),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://evilexample.com/", False),
        ("http://intranet:*", "http://intranet:8080/", True),
        ("api.example.com:8443", "https://api.example.com:8443/", True),
        ("[2606:4700::1111]", "https://[2606:4700:0:0::1111]/", True),
        ("*", "https://anything.example/", True),
        ("*", "https://metadata.google.internal/", False),
    ],
)
def test_a_rule_fits_what_it_says(rule: str, url: str, fits: bool) -> None:
    rules = HostRules([HostRule.parse(rule)])
    if fits:
        rules.check(parse_url(url))
    else:
        with pytest.raises(RefusedError):
            rules.check(parse_url(url))


@pytest.mark.parametrize("rule", ["", "ftp://a", "a/b", "a:b", "a:70000", "0x7f.1", "a b", "user@a", "https://a/path"])
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HostRule.parse(rule)


def test_a_private_host_has_an_exact_name() -> None:
    assert HostRules([], ["LOCALHOST."]).is_private("localhost")
    with pytest.raises(ValueError, match="exact"):
        HostRules([], ["*.internal"])


def test_without_rules_nothing_is_allowed() -> None:
    with pytest.raises(RefusedError, match="not allowed"):
        HostRules([]).check(Url("https", "example.com", 443, "/"))
