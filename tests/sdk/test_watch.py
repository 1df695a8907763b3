"""The watch flow, without any I/O: when it resumes, from where, and what it must not survive."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import _watch
from autoglm._retry import Backoff
from autoglm._watch import (
    AllPosition,
    Batch,
    CallEnded,
    CallFailed,
    Command,
    Deliver,
    Interrupted,
    OpenStream,
    Outcome,
    PlanPosition,
    Sleep,
    watch_flow,
)
from autoglm.errors import AutoglmError, InternalError, PreconditionError, SequenceGapError, UnavailableError
from autoglm.model import Event, PlanCreated, PlanResumed, PlanSucceeded, StepProgressed, UnknownFact

GONE = CallFailed(UnavailableError("gone", reason="UNAVAILABLE"), "UNAVAILABLE")


def durable(sequence: int, *, end: int = 0, plan_id: str = "p") -> Event:
    fact = PlanCreated() if sequence == 1 else PlanSucceeded() if sequence == end else PlanResumed(epoch=sequence)
    return Event(plan_id=plan_id, sequence=sequence, fact=fact)


def told(events: Iterable[Event], sequence: int = 0, journal_id: str = "") -> Batch:
    return Batch(tuple(events), sequence=sequence, journal_id=journal_id)


def drive(position: PlanPosition | AllPosition, outcomes: Iterable[Outcome]) -> tuple[list[Command], list[Event]]:
    """Answer the flow with ``outcomes``; pauses are answered by themselves. Gives its commands, and what it delivered."""
    flow = watch_flow(position, Random(1))
    commands = [next(flow)]
    answers = iter(outcomes)

    try:
        while True:
            sleeping = isinstance(commands[-1], Sleep)
            outcome = None if sleeping else next(answers, None)

            if outcome is None and not sleeping:
                break

            commands.append(flow.send(outcome))
    except StopIteration:
        pass

    return commands, [event for command in commands if isinstance(command, Deliver) for event in command.events]


def opened(commands: list[Command]) -> list[OpenStream]:
    return [command for command in commands if isinstance(command, OpenStream)]


def test_a_plan_is_delivered_to_its_end_in_one_stream() -> None:
    commands, events = drive(
        PlanPosition("p"), [told([durable(1)], 1, "j"), told([durable(2), durable(3, end=3)], 3), GONE]
    )

    assert [event.sequence for event in events] == [1, 2, 3]
    assert opened(commands) == [OpenStream(0)]
    assert isinstance(commands[-1], Deliver)  # the outcome after it is never asked for


def test_it_resumes_after_the_last_sequence_seen_and_names_the_journal() -> None:
    commands, events = drive(PlanPosition("p"), [told([durable(1), durable(2)], 2, "j"), GONE, told([durable(3)], 3)])

    assert opened(commands) == [OpenStream(0), OpenStream(2, "j")]
    assert any(isinstance(command, Sleep) for command in commands)
    assert [event.sequence for event in events] == [1, 2, 3]


def test_a_duplicate_is_dropped() -> None:
    _, events = drive(PlanPosition("p"), [told([durable(1), durable(2)], 2), told([durable(2), durable(3)], 3)])

    assert [event.sequence for event in events] == [1, 2, 3]


@pytest.mark.parametrize("after", [0, 5])
def test_a_gap_is_an_error(after: int) -> None:
    with pytest.raises(
        SequenceGapError, match=f"last sequence seen is {after + 1}, but the next event has {after + 3}"
    ):
        drive(PlanPosition("p", after), [told([durable(after + 1), durable(after + 3)], after + 3)])


def test_a_server_that_claims_more_than_it_sent_is_a_gap() -> None:
    with pytest.raises(SequenceGapError, match="up to 4"):
        drive(PlanPosition("p"), [told([durable(1)], 4)])


def test_an_unknown_fact_counts() -> None:
    unknown = Event(plan_id="p", sequence=2, fact=UnknownFact(number=99))
    _, events = drive(PlanPosition("p"), [told([durable(1), unknown, durable(3)], 3)])

    assert events[1] is unknown


def test_what_is_ephemeral_is_passed_on_and_counts_for_nothing() -> None:
    passing = Event(plan_id="p", sequence=1, ephemeral=True, fact=StepProgressed(fraction=0.5))
    commands, events = drive(
        PlanPosition("p"), [told([durable(1), passing, passing], 1), GONE, told([passing, durable(2)], 2)]
    )

    assert [event.sequence for event in events] == [1, 1, 1, 1, 2]
    assert opened(commands)[1] == OpenStream(1)


@pytest.mark.parametrize(
    "failed",
    [
        GONE,
        CallFailed(UnavailableError("ended", reason="WATCH_ENDED"), "UNAVAILABLE"),
        CallFailed(UnavailableError("draining", reason="SERVER_DRAINING"), "UNAVAILABLE"),
        CallFailed(AutoglmError("reset", reason="CANCELLED"), "CANCELLED"),
        CallFailed(AutoglmError("proxy", reason="DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED"),
        CallFailed(InternalError("Received RST_STREAM with error code 0", reason="INTERNAL"), "INTERNAL"),
        CallFailed(InternalError("Failed parsing HTTP/2 (bytes that were damaged)", reason="INTERNAL"), "INTERNAL"),
        CallEnded(),
    ],
)
def test_it_survives(failed: Outcome) -> None:
    commands, _ = drive(PlanPosition("p"), [told([durable(1)], 1), failed])

    assert opened(commands) == [OpenStream(0), OpenStream(1)]


@pytest.mark.parametrize(
    "failed",
    [
        CallFailed(PreconditionError("changed", reason="JOURNAL_CHANGED"), "FAILED_PRECONDITION"),
        CallFailed(AutoglmError("no", reason="PERMISSION_DENIED"), "PERMISSION_DENIED"),
        CallFailed(InternalError("a bug, id 7", reason="INTERNAL"), "INTERNAL"),
        CallFailed(AutoglmError("slow RST_STREAM", reason="PLAN_TIMEOUT"), "DEADLINE_EXCEEDED"),
        CallFailed(AutoglmError("?", reason="UNIMPLEMENTED"), "UNIMPLEMENTED"),
    ],
)
def test_it_does_not_survive_a_refusal(failed: CallFailed) -> None:
    with pytest.raises(AutoglmError) as caught:
        drive(PlanPosition("p"), [told([durable(1)], 1), failed])

    assert caught.value is failed.error


def test_two_streams_that_end_ok_without_news_are_the_end() -> None:
    commands, events = drive(PlanPosition("p", 7), [told([], 7), CallEnded(), told([], 7), CallEnded(), told([], 7)])

    assert events == []
    assert len(opened(commands)) == 2  # a third is not opened


def test_being_interrupted_costs_neither_pause_nor_attempt() -> None:
    many = [outcome for _ in range(500) for outcome in (told([], 0), Interrupted())]
    commands, _ = drive(PlanPosition("p"), many)

    assert not any(isinstance(command, Sleep) for command in commands)
    assert len(opened(commands)) == 501


def test_a_server_that_never_answers_is_given_up_soon() -> None:
    last = _watch.OPEN_ATTEMPTS_MAX
    commands, _ = drive(PlanPosition("p"), [GONE] * (last - 1))

    assert len(opened(commands)) == last

    with pytest.raises(UnavailableError):
        drive(PlanPosition("p"), [GONE] * last)


def test_a_server_that_fails_after_each_first_message_is_given_up_at_last() -> None:
    outcomes = [outcome for _ in range(_watch.RESUME_ATTEMPTS_MAX) for outcome in (told([], 0), GONE)]

    assert len(opened(drive(PlanPosition("p"), outcomes[:-2])[0])) == _watch.RESUME_ATTEMPTS_MAX

    with pytest.raises(UnavailableError):
        drive(PlanPosition("p"), outcomes)


def test_progress_resets_the_count_of_failures() -> None:
    outcomes = [outcome for number in range(1, 400) for outcome in (told([durable(number)], number), GONE)]
    _, events = drive(PlanPosition("p"), outcomes)

    assert len(events) == 399


def test_pauses_grow_to_the_ceiling_and_are_spread() -> None:
    backoff = Backoff(initial=0.1, ceiling=2.0)
    pauses = [[backoff.pause(failures, Random(seed)) for seed in range(200)] for failures in range(1, 2000, 7)]

    assert max(pauses[0]) <= 0.1
    assert all(max(some) <= 2.0 for some in pauses)
    assert max(pauses[-1]) > 1.9
    assert min(pauses[-1]) < 0.1


def test_all_plans_go_on_from_the_cursor_and_each_plan_is_dense() -> None:
    first = Batch((durable(1, plan_id="a"), durable(1, plan_id="b"), durable(2, plan_id="a")), cursor="c1")
    second = Batch((durable(2, plan_id="a"), durable(2, plan_id="b")), cursor="c2")
    commands, events = drive(AllPosition(), [first, GONE, second])

    assert opened(commands) == [OpenStream(), OpenStream(cursor="c1")]
    assert [(event.plan_id, event.sequence) for event in events] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [command.cursor for command in commands if isinstance(command, Deliver)] == ["c1", "c2"]

    with pytest.raises(SequenceGapError, match="plan b"):
        drive(AllPosition(), [first, Batch((durable(3, plan_id="b"),), cursor="c2")])


def test_all_plans_forget_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "PLANS_MAX", 3)
    position = AllPosition()
    drive(position, [Batch(tuple(durable(1, plan_id=str(n)) for n in range(10)), cursor="c")])

    assert list(position._sequences) == ["7", "8", "9"]

    drive(position, [Batch((Event(plan_id="8", sequence=2, fact=PlanSucceeded()),), cursor="d")])

    assert list(position._sequences) == ["7", "9"]


@given(
    length=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 30), max_size=12),
    overlap=st.integers(0, 3),
    size=st.integers(1, 7),
)
def test_whatever_is_cut_or_sent_twice_each_event_comes_once_in_order(
    length: int, cuts: list[int], overlap: int, size: int
) -> None:
    """A server that sends some events again, and whose streams break off anywhere, cannot be told from a perfect one."""
    everything = [durable(number, end=length) for number in range(1, length + 1)]
    flow = watch_flow(PlanPosition("p"), Random(0))
    command: Command = next(flow)
    delivered: list[Event] = []
    budget = iter(cuts)
    left = sent = 0

    try:
        while True:
            if isinstance(command, OpenStream):
                sent = max(0, command.after_sequence - overlap)
                left = next(budget, 1000)
            elif isinstance(command, Deliver):
                delivered += command.events
            else:
                command = flow.send(None)
                continue

            if left <= 0:
                command = flow.send(GONE)
                continue

            some = everything[sent : sent + min(size, left)]
            sent += len(some)
            left -= len(some)
            command = flow.send(told(some, some[-1].sequence) if some else CallEnded())
    except StopIteration:
        pass

    assert delivered == everything
