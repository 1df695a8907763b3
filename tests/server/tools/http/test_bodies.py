"""Decoding within bounds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.tools.http.bodies import read_body
from autoglm_server.tools.http.errors import GarbledError, TooLargeError


async def chunked(data: bytes, size: int, given_out: list[int] | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        if given_out is not None:
            given_out.append(start)

        yield data[start : start + size]


def bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@given(st.binary(max_size=2000), st.integers(1, 700), st.sampled_from(["", "gzip", "deflate", "bare", "two"]))
async def test_what_was_encoded_is_read(data: bytes, size: int, encoding: str) -> None:
    encoded = {
        "": lambda: data,
        "gzip": lambda: gzip.compress(data),
        "deflate": lambda: zlib.compress(data),
        "bare": lambda: bare(data),
        "two": lambda: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    }[encoding]()
    name = {"bare": "deflate", "two": "gzip"}.get(encoding, encoding)
    assert await read_body(chunked(encoded, size), name, 4000) == data


async def test_a_bomb_is_refused_and_never_held() -> None:
    bomb = gzip.compress(b"\0" * (50 << 20))
    read: list[int] = []
    with pytest.raises(TooLargeError):
        await read_body(chunked(bomb, 100, read), "gzip", 1000)

    assert len(read) < 10, "it went on reading"
    assert len(zlib.decompress(bomb, 31)) > 1000, "the control: a decoder without a bound holds it all"


async def test_an_endless_body_is_refused() -> None:
    read: list[int] = []
    with pytest.raises(TooLargeError):
        await read_body(chunked(b"x" * 100_000, 100, read), "", 1000)

    assert len(read) == 11


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(b"hello" * 100, mtime=0)[:-9], "gzip"),
        (b"x", "br"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "gzip, gzip"),
        (gzip.compress(b"x", mtime=0) + b"rubbish", "gzip"),
    ],
    ids=["plain", "cut", "unknown", "twice", "rubbish"],
)
async def test_what_cannot_be_decoded_is_garbled(data: bytes, encoding: str) -> None:
    with pytest.raises(GarbledError):
        await read_body(chunked(data, 50), encoding, 10_000)
