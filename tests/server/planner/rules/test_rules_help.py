"""What is said when a request cannot be read: what may have been meant, else requests that work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autoglm.model import Failure, StepDraft, Tool
from autoglm_server.planner.planner import PlannerError, RoundView
from autoglm_server.planner.rules import RulesPlanner, example_request
from autoglm_server.planner.rules.examples import some_requests
from autoglm_server.spelling import edits, nearest
from autoglm_server.tools.builtin import builtin_tools

View = Callable[..., RoundView]
MESSAGE_MAX = 400


@pytest.fixture(scope="module", params=["by name", "the other way round"])
def builtin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Tool]:
    tools = sorted((tool.spec for tool in builtin_tools(tmp_path_factory.mktemp("w"))), key=lambda tool: tool.name)
    return tools if request.param == "by name" else tools[::-1]


async def _drafts(view: RoundView) -> list[StepDraft]:
    return [item async for item in RulesPlanner().round(view) if isinstance(item, StepDraft)]


async def _failure(view: RoundView) -> Failure:
    with pytest.raises(PlannerError) as caught:
        await _drafts(view)

    return caught.value.failure


@pytest.mark.parametrize("chinese", [False, True])
async def test_every_tool_has_an_example_that_works(view: View, builtin: list[Tool], chinese: bool) -> None:
    for tool in builtin:
        told = example_request(tool, chinese=chinese)

        assert told, tool.name
        assert [draft.tool for draft in await _drafts(view(told, tools=builtin))] == [tool.name], told


@pytest.mark.parametrize(
    "request_text", ["hello", "help", "now", "", "?", "sing me a song", "asdf qwer zxcv", "open the pod bay doors"]
)
async def test_who_asks_nothing_is_told_what_may_be_asked(view: View, builtin: list[Tool], request_text: str) -> None:
    message = (await _failure(view(request_text, tools=builtin))).message
    examples = some_requests(builtin, chinese=False)

    assert len(examples) == 3
    assert f" Try: {' · '.join(examples)}." in message
    assert "nearest" not in message
    assert len(message) <= MESSAGE_MAX

    for example in examples:
        assert len(await _drafts(view(example, tools=builtin))) == 1


async def test_the_same_in_chinese(view: View, builtin: list[Tool]) -> None:
    message = (await _failure(view("唱首歌", tools=builtin))).message

    assert message.startswith("没有读懂这个请求。“唱首歌”：没有这样的说法。可以试试：")

    for example in some_requests(builtin, chinese=True):
        assert len(await _drafts(view(example, tools=builtin))) == 1


@pytest.mark.parametrize(
    ("request_text", "told"),
    [
        ("waht time is it in Tokyo", "did you mean «what time is it in Tokyo»?"),
        ('upercase "abc"', 'did you mean «uppercase "abc"»?'),
        ("convret 3 km to miles", "did you mean «convert 3 km to miles»?"),
        ("sqare root of 2", "did you mean «square root of 2»?"),
        ("what day of the week is 2026-02-30", "there is no such date as 2026-02-30"),
        ("what day of the week is 03/04/2026", "write a date as 2026-04-03 or 3 April 2026"),
        ("03/04/2026", "write a date as 2026-04-03 or 3 April 2026"),
        ("2026-02-30是星期几", "没有 2026-02-30 这一天"),
        ("convert 3 km", "<from unit> to <to unit>"),
        ("replace my cat with a dog in the cat sat", 'did you mean «replace "my cat" with "a dog" in the cat sat»?'),
        ("what's the length of hello world", 'did you mean «what\'s the length of "hello world"»?'),
        ("统计 hello 在 hello world 里出现的次数", "您是不是想说“统计 “hello” 在 “hello world” 里出现的次数”？"),
        ("replace cat with", 'replace "<old>" with "<new>" in <text>'),
        ("delete notes.txt", "no phrase does this to a file; there is: append"),
        ("rename a.txt to b.txt", 'write "hello world" to notes.txt'),
        ("删除 清单.txt", "没有这样处理文件的说法；可以说："),
    ],
)
async def test_what_may_have_been_meant(view: View, builtin: list[Tool], request_text: str, told: str) -> None:
    message = (await _failure(view(request_text, tools=builtin))).message

    assert told in message
    assert len(message) <= MESSAGE_MAX


def test_a_tool_without_phrases_has_no_example() -> None:
    assert example_request(Tool(name="x.y")) == ""
    assert some_requests([Tool(name="x.y")], chinese=False) == []


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("miels", "miles", 1),
        ("miles", "miles", 0),
        ("mil", "miles", 2),
        ("abc", "cba", 2),
        ("", "abc", 3),
        ("a" * 50, "a" * 50, 3),
    ],
)
def test_edits(one: str, other: str, count: int) -> None:
    assert edits(one, other) == count
    assert edits(other, one) == count


def test_the_nearest_word_is_the_likeliest_mistake() -> None:
    assert nearest("miels", ["mil", "mils", "miles", "mile"]) == ["miles"]
    assert nearest("tokio", ["tokyo", "toronto"]) == ["tokyo"]
    assert nearest("xyz", ["tokyo"]) == []
