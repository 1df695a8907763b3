"""A page that no index leads to is looked for in so many plans and no more: others who read wait for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import PlanState
from autoglm_server.journal import _read
from autoglm_server.journal.journal import Compaction, PlanQuery
from autoglm_server.journal.sqlite import SqliteJournal

PLANS, FAILED, REMOVED = 20, {2, 3, 17}, range(5, 15)


async def listed(journal: SqliteJournal, query: PlanQuery) -> list[str]:
    """Give the plans of each page."""
    pages, token, more = [], "", True
    while more:
        page = await journal.list_rows(replace(query, page_token=token))
        pages.append(",".join(row.plan_id for row in page.rows))
        token = page.next_page_token
        more = bool(token)

    return pages


@pytest.fixture
async def journal(tmp_path: Path, hand_of: Any) -> Any:
    """Twenty plans that have ended, but the last; three failed, and half of them are no longer there."""
    journal = SqliteJournal(tmp_path)
    await journal.open()
    hand = hand_of(journal)
    for number in range(PLANS):
        state = PlanState.FAILED if number in FAILED else PlanState.SUCCEEDED
        more = {"end_time": hand.start} if number < PLANS - 1 else {}
        state = state if more else PlanState.RUNNING
        await hand.write(
            f"{number}", 1, row=hand.row(f"{number}", state, minute=number, labels={"n": f"{number}"}, **more)
        )

    await journal.compact([Compaction(f"{number}", 1, b"s") for number in REMOVED])
    await journal.purge(1000)
    assert len(await journal.remove([f"{number}" for number in REMOVED])) == len(REMOVED)
    yield journal
    await journal.close()


@pytest.mark.parametrize(
    ("searched", "pages"),
    [
        (4, ["17", "", "3,2", ""]),  # 19 to 16; 15; then, as ten are not there any more, 4 to 1; 0
        (1000, ["17,3,2"]),
    ],
)
async def test_a_search_goes_on_with_the_next_page(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, searched: int, pages: list[str]
) -> None:
    monkeypatch.setattr(_read, "SEARCHED_MAX", searched)
    found = await listed(journal, PlanQuery(states=frozenset({PlanState.FAILED, PlanState.CANCELLED})))
    assert found == pages


async def test_a_search_by_time_has_pages_as_well(journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_read, "SEARCHED_MAX", 4)
    start = (await journal.list_rows(PlanQuery(labels={"n": "0"}))).rows[0].create_time
    assert "".join(await listed(journal, PlanQuery(created_before=start + timedelta(minutes=2)))) == "10"
    both = PlanQuery(created_after=start + timedelta(minutes=17), states=frozenset({PlanState.FAILED}), page_size=1)
    assert "".join(await listed(journal, both)) == "17"


@pytest.mark.parametrize(
    "query",
    [
        PlanQuery(),
        PlanQuery(labels={"n": "0"}),
        PlanQuery(states=frozenset({PlanState.RUNNING, PlanState.WAITING})),
        PlanQuery(context_id="none", states=frozenset({PlanState.FAILED})),
    ],
)
async def test_what_an_index_leads_to_is_not_searched_for(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, query: PlanQuery
) -> None:
    monkeypatch.setattr(_read, "SEARCHED_MAX", 1)
    assert len(await listed(journal, query)) == 1
