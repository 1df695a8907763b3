"""What every journal promises, in memory and on SQLite alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autoglm.model import PlanState
from autoglm_server.journal.journal import (
    Append,
    Claim,
    DuplicateRequestError,
    FencedError,
    Journal,
    JournalError,
    JournalFailedError,
    PlanQuery,
    Record,
    RequestKey,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_gives_back_the_bytes_it_was_given(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1, 3)
    await hand.write("a", 4)
    bodies = await journal.read("a", 0)
    assert [body.rstrip(b"\0") for body in bodies] == [b"a 1 ", b"a 2 ", b"a 3 ", b"a 4 "]
    assert await journal.read("a", 3) == bodies[3:]
    assert await journal.read("a", 4) == []
    assert await journal.read("b", 0) == []
    assert await journal.last_sequence("a") == 4
    assert await journal.last_sequence("b") is None


async def test_settles_on_a_later_turn_and_in_order(journal: Journal, hand: Any) -> None:
    told: list[int] = []
    first, second = hand.send("a", 1), hand.send("a", 2)
    first.add_done_callback(lambda _: told.append(1))
    second.add_done_callback(lambda _: told.append(2))
    assert not first.done()
    await second
    await asyncio.sleep(0)
    assert told == [1, 2]


async def test_one_turn_is_one_commit_told_before_its_appends_settle(journal: Journal, hand: Any) -> None:
    seen: list[list[tuple[int, str, int, bool]]] = []
    outcomes: list[asyncio.Future[JournalError | None]] = []

    def on_commit(records: Sequence[Record]) -> None:
        settled = any(outcome.done() for outcome in outcomes)
        seen.append([(record.position, record.plan_id, record.sequence, settled) for record in records])

    journal.on_commit = on_commit
    outcomes += [hand.send("a", 1, 2), hand.send("b", 1), hand.send("a", 3)]
    await asyncio.gather(*outcomes)
    assert seen == [[(1, "a", 1, False), (2, "a", 2, False), (3, "b", 1, False), (4, "a", 3, False)]]


async def test_a_refused_append_spoils_no_other_of_its_commit(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1)
    outcomes = await asyncio.gather(
        hand.send("a", 2),
        hand.send("a", 4),
        hand.send("b", 1, epoch=2),
        hand.send("c", 1),
        hand.send("a", 3, epoch=2),
        hand.send("a", 3),
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        FencedError,
        FencedError,
        type(None),
        FencedError,
        type(None),
    ]
    assert await journal.last_sequence("a") == 3
    assert await journal.last_sequence("b") is None
    assert await journal.last_position() == 4


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bodies": []}, "at least one event"),
        ({"bodies": [b"x", b""]}, "none may be empty"),
        ({"row": None}, "needs the plan's row"),
        ({"first_sequence": 0}, "begin at 1"),
        ({"plan_id": "other"}, "is of plan 'a'"),
        ({"request_key": RequestKey("", "", "nul\0", "")}, "NUL"),
        ({"first_sequence": 2, "request_key": RequestKey("", "", "r", "")}, "first append alone"),
    ],
)
async def test_refuses_an_append_of_the_wrong_shape(
    journal: Journal, hand: Any, changed: dict[str, Any], words: str
) -> None:
    outcome: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
    values = {
        "plan_id": "a",
        "epoch": 1,
        "first_sequence": 1,
        "bodies": [b"x"],
        "row": hand.row("a"),
        "request_key": None,
    }
    journal.append(Append(**{**values, **changed}, settled=outcome.set_result))
    refusal = await outcome
    assert refusal is not None
    assert words in str(refusal)


async def test_a_claim_fences_the_owner_before(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1, 2)
    assert await journal.claim(["a", "none", "a"], "me") == [Claim("a", 2, 2)]
    assert isinstance(await hand.send("a", 3, epoch=1), FencedError)
    await hand.write("a", 3, epoch=2)
    assert await journal.claim(["a"], "you") == [Claim("a", 3, 3)]
    assert await journal.claim([], "me") == []


async def test_a_claim_comes_after_what_was_handed_over_before(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1)
    before = hand.send("a", 2)
    claiming = asyncio.ensure_future(journal.claim(["a"], "me"))
    await asyncio.sleep(0)
    after = hand.send("a", 3)
    assert await claiming == [Claim("a", 2, 2)]
    assert await before is None
    assert isinstance(await after, FencedError)


async def test_a_request_id_makes_one_plan(journal: Journal, hand: Any) -> None:
    key = RequestKey("", "ann", "r1", "sha256:1")
    assert await journal.find_request("", "ann", "r1") is None
    first, second = hand.send("a", 1, key=key), hand.send("b", 1, key=RequestKey("", "ann", "r1", "sha256:2"))
    assert await first is None
    for refusal in (await second, await hand.send("c", 1, key=key)):
        assert isinstance(refusal, DuplicateRequestError)
        assert (refusal.plan_id, refusal.request_digest) == ("a", "sha256:1")

    assert await journal.last_sequence("b") is None
    assert await journal.find_request("", "ann", "r1") == ("a", "sha256:1")
    await hand.write("d", 1, key=RequestKey("", "bob", "r1", "sha256:3"))
    await hand.write("e", 1, key=RequestKey("other", "ann", "r1", "sha256:4"))


async def test_reads_in_pages_with_at_least_one(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1, 5, size=100)
    assert len(await journal.read("a", 0, limit=2)) == 2
    assert len(await journal.read("a", 0, bytes_max=300)) == 3
    assert len(await journal.read("a", 0, bytes_max=299)) == 2
    assert len(await journal.read("a", 0, bytes_max=1)) == 1
    assert len(await journal.read_all(0, bytes_max=299)) == 2
    assert len(await journal.read_all(4, bytes_max=1)) == 1


@pytest.mark.parametrize(("limit", "bytes_max"), [(500, 1 << 20), (2, 1 << 20), (500, 2000), (500, 10)])
async def test_reads_the_starts_of_plans_as_each_by_itself(
    journal: Journal, hand: Any, limit: int, bytes_max: int
) -> None:
    plans = {"one": (1, 20), "three": (3, 300), "large": (4, 1000), "two": (2, 20)}
    for plan_id, (count, size) in plans.items():
        assert await hand.send(plan_id, 1, count, size=size) is None

    wanted = ["two", "nobody", "large", "one", "three"]
    starts = await journal.read_starts(wanted, limit=limit, bytes_max=bytes_max)
    assert [list(start) for start in starts] == [
        list(await journal.read(plan_id, 0, limit=limit, bytes_max=bytes_max)) for plan_id in wanted
    ]
    assert all(len(start) >= (plan_id != "nobody") for plan_id, start in zip(wanted, starts, strict=True))
    assert list(await journal.read_starts([])) == []


async def test_reads_all_plans_in_commit_order(journal: Journal, hand: Any) -> None:
    await hand.write("b", 1)
    await hand.write("a", 1)
    await hand.write("b", 2, 2)
    records = await journal.read_all(0)
    assert [(r.position, r.plan_id, r.sequence) for r in records] == [
        (1, "b", 1),
        (2, "a", 1),
        (3, "b", 2),
        (4, "b", 3),
    ]
    assert await journal.read_all(2, limit=1) == [Record(3, "b", 2, (await journal.read("b", 1))[0])]
    assert await journal.read_all(4) == []


async def test_only_state_and_body_of_a_row_change(journal: Journal, hand: Any) -> None:
    made = hand.row("a", labels={"k": "v", "ü": "雪 \"'"}, context_id="c", parent_plan_id="p", minute=7)
    await hand.write("a", 1, row=made)
    assert await journal.get_row("a") == made
    assert await journal.get_row("b") is None
    await hand.write("a", 2, row=hand.row("a", PlanState.FAILED, labels={"k": "other"}, body=bytes(range(256))))
    changed = await journal.get_row("a")
    assert changed is not None
    assert (changed.state, changed.body) == (PlanState.FAILED, bytes(range(256)))
    assert (changed.labels, changed.create_time) == (made.labels, made.create_time)


async def test_lists_open_plans_oldest_first(journal: Journal, hand: Any) -> None:
    for plan_id in "cab":
        await hand.write(plan_id, 1)

    await hand.write("a", 2, row=hand.row("a", PlanState.CANCELLED))
    assert await journal.open_plans() == ["c", "b"]


async def test_lists_open_plans_that_another_made(journal: Journal, hand: Any) -> None:
    for plan_id, parent in (("a", ""), ("b", "a"), ("c", "b"), ("d", "a")):
        await hand.write(plan_id, 1, row=hand.row(plan_id, parent_plan_id=parent))

    await hand.write("d", 2, row=hand.row("d", PlanState.FAILED, parent_plan_id="a"))
    assert await journal.open_children() == {"b": "a", "c": "b"}


@pytest.fixture
async def listed(journal: Journal, hand: Any) -> Journal:
    """Six plans: p0 to p5, one a minute."""
    states = [
        PlanState.QUEUED,
        PlanState.RUNNING,
        PlanState.WAITING,
        PlanState.SUCCEEDED,
        PlanState.FAILED,
        PlanState.RUNNING,
    ]
    for number, state in enumerate(states):
        row = hand.row(
            f"p{number}",
            state,
            minute=number,
            tenant="t" if number == 5 else "",
            labels={"even": str(number % 2 == 0), "all": "1"},
            context_id="c" if number in {1, 4} else "",
            parent_plan_id="p0" if number in {2, 3} else "",
        )
        await hand.write(f"p{number}", 1, row=row)

    return journal


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (PlanQuery(), "543210"),
        (PlanQuery(states=frozenset({PlanState.RUNNING, PlanState.WAITING})), "521"),
        (PlanQuery(states=frozenset({PlanState.RUNNING, PlanState.FAILED})), "541"),
        (PlanQuery(labels={"even": "True"}), "420"),
        (PlanQuery(labels={"even": "True", "all": "1"}), "420"),
        (PlanQuery(labels={"even": "True", "all": "2"}), ""),
        (PlanQuery(labels={"none": ""}), ""),
        (PlanQuery(context_id="c"), "41"),
        (PlanQuery(parent_plan_id="p0"), "32"),
        (PlanQuery(tenant="t"), "5"),
        (PlanQuery(created_after=START + timedelta(minutes=4)), "54"),
        (PlanQuery(created_before=START + timedelta(minutes=2)), "10"),
        (PlanQuery(labels={"even": "False"}, states=frozenset({PlanState.RUNNING}), context_id="c"), "1"),
    ],
)
async def test_lists_rows_by_every_filter_in_any_page_size(listed: Journal, query: PlanQuery, expected: str) -> None:
    for size in (0, 1, 2, 5, 1000):
        found, token = [], ""
        while True:
            page = await listed.list_rows(replace(query, page_size=size, page_token=token))
            found += [row.plan_id for row in page.rows]
            token = page.next_page_token
            if not token:
                break

            assert page.rows

        assert "".join(found).replace("p", "") == expected


async def test_a_page_token_belongs_to_its_query(listed: Journal) -> None:
    token = (await listed.list_rows(PlanQuery(page_size=1))).next_page_token
    for query in (
        PlanQuery(page_token=token, tenant="t"),
        PlanQuery(page_token="x"),
        PlanQuery(page_token="é"),
        PlanQuery(page_token="YQ"),
    ):
        with pytest.raises(ValueError, match="page_token"):
            await listed.list_rows(query)


async def test_a_page_ends_before_it_is_too_large_to_send(journal: Journal, hand: Any) -> None:
    for plan_id in "abc":
        await hand.write(plan_id, 1, row=hand.row(plan_id, body=bytes(1_500_000)))

    page = await journal.list_rows(PlanQuery())
    assert [row.plan_id for row in page.rows] == ["c"]
    page = await journal.list_rows(PlanQuery(page_token=page.next_page_token))
    assert [row.plan_id for row in page.rows] == ["b"]


async def test_close_makes_durable_what_was_handed_over_and_open_finds_it(journal: Journal, hand: Any) -> None:
    await hand.write("a", 1)
    named = journal.journal_id
    pending = hand.send("a", 2)
    await journal.close()
    assert await pending is None
    assert isinstance(await hand.send("a", 3), JournalFailedError)
    await journal.open()
    assert journal.journal_id == named
    assert await journal.last_sequence("a") == 2
    assert await journal.last_position() == 2
    await hand.write("a", 3)
    assert [r.position for r in await journal.read_all(0)] == [1, 2, 3]


async def test_a_callback_that_breaks_does_not_leave_others_waiting(journal: Journal, hand: Any) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    journal.append(Append("a", 1, 1, [b"x"], lambda _: 1 / 0, hand.row("a")))  # type: ignore[arg-type]
    assert await hand.send("b", 1) is None
    assert isinstance(told[0]["exception"], ZeroDivisionError)
