"""What the rules planner says when it cannot plan: which clause, the nearest phrases it knows, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoglm.model import DOMAIN, ErrorReason, Failure, StepRejected, Violation
from autoglm_server.planner.rules.nearest import nearest_phrases
from autoglm_server.planner.rules.phrasebook import KnownTool
from autoglm_server.planner.rules.reading import CLAUSE_MAX, DIVISIONS_MAX, Clause

_SHOWN_MAX = 200
_TOLD_MAX = 5
_VIOLATIONS_MAX = 50
_HINT = (
    " Nothing was run. `autoglm tools` lists what can be asked for; "
    "for requests in free words use a model: --planner llm --model MODEL."
)
_HINT_CHINESE = (
    "没有执行任何步骤。`autoglm tools` 列出可以使用的说法；要用自由的语言，请使用模型：--planner llm --model MODEL。"
)


def not_understood(
    clauses: Sequence[Clause], problems: Mapping[int, str], tools: Sequence[KnownTool], *, chinese: bool
) -> Failure:
    """Tell of the clauses that no phrase fits, with the nearest phrases, and of those that refer to nothing."""
    if not clauses:
        told = "请求里没有要做的事。" if chinese else "The request says nothing to do."
        return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, told + (_HINT_CHINESE if chinese else _HINT))

    wrong = [index for index, clause in enumerate(clauses) if clause.phrase is None or index in problems]
    violations = [
        Violation(
            "request",
            f"«{_cut(clauses[index].text)}»: {problems.get(index) or _unread(clauses[index], tools, chinese=chinese)}",
            ErrorReason.REQUEST_NOT_UNDERSTOOD.name,
        )
        for index in wrong[:_VIOLATIONS_MAX]
    ]
    told = " ".join(violation.description for violation in violations[:_TOLD_MAX])
    more = len(wrong) - _TOLD_MAX

    if chinese:
        rest = f"还有 {more} 个。" if more > 0 else ""
        message = f"没有读懂 {len(clauses)} 个分句中的 {len(wrong)} 个。{told}{rest}{_HINT_CHINESE}"
    else:
        count = f"{len(wrong)} of {len(clauses)} clauses" if len(clauses) > 1 else "the request"
        rest = f" And {more} more." if more > 0 else ""
        message = f"Could not read {count}: {told}{rest}{_HINT}"

    return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, message, violations)


def too_many_clauses(count: str, *, chinese: bool) -> Failure:
    """Tell that the request is divided in more places than are looked at."""
    message = (
        f"请求里有 {count} 处可以断句，最多可有 {DIVISIONS_MAX} 处。请把它分成几个请求，或者把长文本放在引号里。"
        if chinese
        else f"The request has {count} places where it may be divided (commas, 'and', line ends …); "
        f"at most {DIVISIONS_MAX} are read. "
        "Make several requests of it, or put long text between quotes."
    )
    return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, message + (_HINT_CHINESE if chinese else _HINT))


def too_many_steps(needed: int, left: int, *, chinese: bool) -> Failure:
    """Tell that the bound on steps is lower than the request needs."""
    message = (
        f"请求有 {needed} 个分句，每个需要一个步骤，但只允许 {left} 个步骤。"
        f"请提高 max_steps（--max-steps {needed}），或者把请求拆开。没有执行任何步骤。"
        if chinese
        else f"The request has {needed} clauses, each of which needs a step, but max_steps allows {left}. "
        f"Raise it (--max-steps {needed}) or ask for less at once. Nothing was run."
    )
    return _failure(ErrorReason.MAX_STEPS, message)


def no_round_left(*, chinese: bool) -> Failure:
    """Tell that steps are wanted where an answer must be given."""
    message = (
        "规则规划器需要两轮：一轮列出步骤，一轮回答。请把 max_rounds 设为 2 或更多。没有执行任何步骤。"
        if chinese
        else "The rules planner needs two rounds, one for the steps and one for the answer. "
        "Set max_rounds to 2 or more. Nothing was run."
    )
    return _failure(ErrorReason.MAX_ROUNDS, message)


def tools_disabled(*, chinese: bool) -> Failure:
    """Tell that it can do nothing without tools."""
    message = (
        "工具调用已关闭（enable_tool_call=false），而规则规划器只能用工具回答。"
        "请打开工具调用，或者使用模型：--planner llm --model MODEL。"
        if chinese
        else "Tool calls are disabled (enable_tool_call=false), and the rules planner can answer with tools alone. "
        "Allow tool calls, or use a model: --planner llm --model MODEL."
    )
    return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, message)


def refused(rejected: Sequence[StepRejected], *, chinese: bool) -> Failure:
    """Tell which steps were refused, by their clause, and why: made again, they would be refused again."""
    violations = [violation for one in rejected for violation in one.violations][:_VIOLATIONS_MAX]
    reasons = [
        ", ".join(violation.description for violation in one.violations[:_TOLD_MAX]) for one in rejected[:_TOLD_MAX]
    ]
    clauses = [_cut(one.draft.title) if one.draft else "?" for one in rejected]
    listed = "; ".join(f"«{clause}»: {reason}" for clause, reason in zip(clauses, reasons, strict=False))
    message = f"读懂了，但步骤被拒绝：{listed}。" if chinese else f"Read, but refused as steps: {listed}."
    return _failure(ErrorReason.INVALID_PLAN, message, violations)


def _unread(clause: Clause, tools: Sequence[KnownTool], *, chinese: bool) -> str:
    if len(clause.words) >= CLAUSE_MAX:
        return (
            f"太长，一个分句最多 {CLAUSE_MAX} 个词；请把长文本放在引号里。"
            if chinese
            else f"too long; a clause has at most {CLAUSE_MAX} words, put long text between quotes."
        )

    near = nearest_phrases(clause.words, tools, chinese=chinese)

    if chinese:
        return f"没有合适的说法；最接近的是：{'；'.join(near)}。" if near else "没有合适的说法，也没有接近的。"

    return f"no phrase fits; the nearest are: {'; '.join(near)}." if near else "no phrase fits, and none is near."


def _failure(reason: ErrorReason, message: str, violations: Sequence[Violation] = ()) -> Failure:
    return Failure(reason=reason.name, domain=DOMAIN, message=message, violations=tuple(violations))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
