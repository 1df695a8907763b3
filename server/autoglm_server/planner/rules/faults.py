"""What the rules planner says when it cannot plan: which clause, what may have been meant, and requests that work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from autoglm.model import DOMAIN, ErrorReason, Failure, StepRejected, Violation
from autoglm_server.planner.rules.grammar import slots_of
from autoglm_server.planner.rules.nearest import nearest_phrases
from autoglm_server.planner.rules.phrasebook import CompiledPhrase, KnownTool
from autoglm_server.planner.rules.reading import CLAUSE_MAX, DIVISIONS_MAX, Clause

_SHOWN_MAX = 100
_REFUSED_MAX = 200
_TOLD_MAX = 5
_VIOLATIONS_MAX = 50
_WRITTEN_DATE = re.compile(r"(?<![\d./-])(?:\d{4}([-/])\d{1,2}\1\d{1,2}|\d{1,2}/\d{1,2}/\d{4})(?![\d/-])")
_FILE_NAME = re.compile(r"(?<![\w@/:.])[\w-][\w./-]{0,100}\.[A-Za-z][A-Za-z0-9]{0,4}(?![\w/])")
_HINT = (
    " Nothing was run. `autoglm tools` lists the tools, `autoglm tool NAME` shows the phrases of one; "
    "for free words use a model: --planner llm --model MODEL."
)
_HINT_CHINESE = (
    "没有执行任何步骤。`autoglm tools` 列出工具，`autoglm tool NAME` 显示工具的说法；"
    "要用自由的语言，请使用模型：--planner llm --model MODEL。"
)


def not_understood(
    clauses: Sequence[Clause],
    problems: Mapping[int, str],
    tools: Sequence[KnownTool],
    *,
    meant: Callable[[str], str],
    quoted: Callable[[str], str],
    examples: Callable[[], Sequence[str]],
    with_files: Callable[[], Sequence[str]],
    chinese: bool,
) -> Failure:
    """Tell of the clauses that no phrase fits, and of those that refer to nothing.

    Args:
        clauses: All of them.
        problems: Why clauses that were read cannot be steps, by their number.
        tools: Of whose phrases the nearest are told.
        meant: Gives a clause without its spelling mistake; asked for the first few.
        quoted: Gives a clause with the quotes it needs; likewise.
        examples: Gives requests that work; asked when there is nothing better to tell.
        with_files: Gives requests that work on files; asked when a clause names one.
        chinese: Whether the message is in Chinese.
    """
    if not clauses:
        told = "请求里没有要做的事。" if chinese else "The request says nothing to do."
        return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, told + _try(examples(), chinese=chinese) + _hint(chinese))

    wrong = [index for index, clause in enumerate(clauses) if clause.phrase is None or index in problems]
    reasons = [
        problems.get(index)
        or _unread(clauses[index], tools, (meant, quoted) if place < _TOLD_MAX else (), with_files, chinese=chinese)
        for place, index in enumerate(wrong[:_VIOLATIONS_MAX])
    ]
    violations = [
        Violation(
            "request",
            _said(clauses[index].text, reason, chinese=chinese),
            ErrorReason.REQUEST_NOT_UNDERSTOOD.name,
        )
        for index, reason in zip(wrong, reasons, strict=False)
    ]
    told = ("" if chinese else " ").join(violation.description for violation in violations[:_TOLD_MAX])
    more = len(wrong) - _TOLD_MAX
    helped = all(reasons)

    if chinese:
        rest = f"还有 {more} 处。" if more > 0 else ""
        begun = (
            f"这个请求有 {len(clauses)} 个部分，其中 {len(wrong)} 个没有读懂。"
            if len(clauses) > 1
            else "没有读懂这个请求。"
        )
        message = f"{begun}{told}{rest}"
    else:
        count = f"{len(wrong)} of {len(clauses)} clauses" if len(clauses) > 1 else "the request"
        rest = f" And {more} more." if more > 0 else ""
        message = f"Could not read {count}: {told}{rest}"

    message += "" if helped else _try(examples(), chinese=chinese)
    return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, message + _hint(chinese), violations)


def _said(clause: str, reason: str, *, chinese: bool) -> str:
    """Tell of one clause why it is not read."""
    if chinese:
        return f"“{_cut(clause)}”：{reason or '没有这样的说法。'}"

    return f"«{_cut(clause)}»: {reason or 'no phrase is like it.'}"


def _hint(chinese: bool) -> str:  # noqa: FBT001 # the language of a text
    return _HINT_CHINESE if chinese else _HINT


def _try(examples: Sequence[str], *, chinese: bool) -> str:
    """Tell requests that work."""
    if not examples:
        return ""

    return f"可以试试：{'；'.join(examples)}。" if chinese else f" Try: {' · '.join(examples)}."


def too_many_clauses(count: str, *, chinese: bool) -> Failure:
    """Tell that the request is divided in more places than are looked at."""
    message = (
        f"请求里有 {count} 处可以断句，最多可有 {DIVISIONS_MAX} 处。请把它分成几个请求，或者把长文本放在引号里。"
        if chinese
        else f"The request has {count} places where it may be divided (commas, 'and', line ends …); "
        f"at most {DIVISIONS_MAX} are read. "
        "Make several requests of it, or put long text between quotes."
    )
    return _failure(ErrorReason.REQUEST_NOT_UNDERSTOOD, message + _hint(chinese))


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
    clauses = [_cut(one.draft.title, _REFUSED_MAX) if one.draft else "?" for one in rejected]
    listed = "; ".join(f"«{clause}»: {reason}" for clause, reason in zip(clauses, reasons, strict=False))
    message = f"读懂了，但步骤被拒绝：{listed}。" if chinese else f"Read, but refused as steps: {listed}."
    return _failure(ErrorReason.INVALID_PLAN, message, violations)


def _unread(
    clause: Clause,
    tools: Sequence[KnownTool],
    menders: Sequence[Callable[[str], str]],
    with_files: Callable[[], Sequence[str]],
    *,
    chinese: bool,
) -> str:
    """Tell why a clause is not read, or nothing when that is all there is to say."""
    if len(clause.words) >= CLAUSE_MAX:
        return (
            f"太长，一个分句最多 {CLAUSE_MAX} 个词；请把长文本放在引号里。"
            if chinese
            else f"too long; a clause has at most {CLAUSE_MAX} words, put long text between quotes."
        )

    for written in _WRITTEN_DATE.finditer(clause.text):
        if told := _no_date(written.group(), chinese=chinese):
            return told

    near = nearest_phrases(clause.words, tools, chinese=chinese)
    strange = _FILE_NAME.search(clause.text) and not any(_about_files(phrase) for phrase in near)

    # Quotes would make a text of a file's name.
    for mend in menders[:1] if strange else menders:
        if told := mend(clause.text):
            return f"您是不是想说“{told}”？" if chinese else f"did you mean «{told}»?"

    if strange and (known := with_files()):
        return (
            f"没有这样处理文件的说法；可以说：{'；'.join(known)}。"
            if chinese
            else f"no phrase does this to a file; there is: {' · '.join(known)}."
        )

    if not near:
        return ""

    shown = ("；" if chinese else "; ").join(phrase.readable for phrase in near)
    return f"最接近的说法是：{shown}。" if chinese else f"no phrase fits; the nearest are: {shown}."


def _about_files(phrase: CompiledPhrase) -> bool:
    return any(slot.kind in {"path", "file"} for slot in slots_of(phrase.sequence))


def _no_date(text: str, *, chinese: bool) -> str:
    """Tell what is wrong with something written like a date, or nothing if it is one."""
    try:
        date.fromisoformat("-".join(part.zfill(2) for part in re.split("[-/]", text)))
    except ValueError:
        if not text[:4].isdigit():
            return (
                f"{text} 有两种读法；请把日期写成 2026-04-03 或 2026年4月3日。"
                if chinese
                else f"{text} may be read in two ways; write a date as 2026-04-03 or 3 April 2026."
            )

        return f"没有 {text} 这一天。" if chinese else f"there is no such date as {text}."

    return ""


def _failure(reason: ErrorReason, message: str, violations: Sequence[Violation] = ()) -> Failure:
    return Failure(reason=reason.name, domain=DOMAIN, message=message, violations=tuple(violations))


def _cut(text: str, most: int = _SHOWN_MAX) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
