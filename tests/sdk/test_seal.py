"""The seal of a stream: whatever happens to its messages on the way, the reader notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm._seal import Seal, SealBrokenError

MESSAGES = st.lists(st.binary(max_size=200), min_size=2, max_size=5, unique=True)


def of_plan(after: int = 3) -> Seal:
    return Seal.of_plan("p", after, durable_only=False, journal_id="j")


def sealed(messages: list[bytes]) -> list[bytes]:
    seal = of_plan()
    return [seal.put(message) for message in messages]


def read(messages: list[bytes], seal: Seal | None = None) -> None:
    seal = seal or of_plan()
    for message in messages:
        seal.check(message)


@given(MESSAGES)
def test_what_was_sent_is_read(messages: list[bytes]) -> None:
    sent = sealed(messages)
    read(sent)
    assert [message[:-5] for message in sent] == messages


@given(MESSAGES, st.data())
def test_every_burst_of_up_to_32_bits_is_noticed(messages: list[bytes], data: st.DataObject) -> None:
    sent = sealed(messages)
    which = data.draw(st.integers(0, len(sent) - 1))
    size = len(sent[which])
    burst = data.draw(st.integers(1, 2**32 - 1)) << data.draw(st.integers(0, size * 8 - 32))
    whole = int.from_bytes(sent[which], "little") ^ burst
    sent[which] = whole.to_bytes(size + 1, "little")[:size]

    with pytest.raises(SealBrokenError):
        read(sent)


@pytest.mark.parametrize(
    "happens",
    [
        lambda sent: sent[1:],
        lambda sent: [*sent[:1], *sent],
        lambda sent: [sent[1], sent[0], *sent[2:]],
        lambda sent: [sent[0][:-1], *sent[1:]],
        lambda sent: [sent[0][:-5], *sent[1:]],
        lambda sent: [b"", *sent],
    ],
    ids=["left out", "doubled", "swapped", "cut", "without it", "empty"],
)
@given(messages=MESSAGES)
def test_what_is_left_out_doubled_swapped_or_cut_is_noticed(
    messages: list[bytes], happens: Callable[[list[bytes]], list[bytes]]
) -> None:
    with pytest.raises(SealBrokenError):
        read(happens(sealed(messages)))


def test_what_was_asked_is_a_part_of_it() -> None:
    begun = [
        of_plan(),
        of_plan(4),
        Seal.of_plan("q", 3, durable_only=False, journal_id="j"),
        Seal.of_plan("p", 3, durable_only=True, journal_id="j"),
        Seal.of_plan("p", 3, durable_only=False, journal_id=""),
        Seal.of_all("p", from_now=False, durable_only=False, labels={}),
        Seal.of_all("p", from_now=True, durable_only=False, labels={}),
        Seal.of_all("p", from_now=False, durable_only=True, labels={}),
        Seal.of_all("p", from_now=False, durable_only=False, labels={"a": "b"}),
    ]

    assert len({seal.put(b"message") for seal in begun}) == len(begun)


def test_labels_have_no_order() -> None:
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    seals = [Seal.of_all("", from_now=False, durable_only=False, labels=labels) for labels in (one, other)]
    read([seals[0].put(b"message")], seals[1])
