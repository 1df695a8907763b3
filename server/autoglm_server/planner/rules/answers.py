"""The answer: a sentence for each clause, from the phrase's template, or of what went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from autoglm.model import Json, Step, StepState
from autoglm_server.planner.rules import grammar
from autoglm_server.planner.rules.binding import Bound, OutputPart
from autoglm_server.planner.rules.grammar import Choice, Slot, Words
from autoglm_server.planner.rules.source import chinese as has_chinese

VALUE_MAX = 500
"""How many characters of one value a sentence shows."""
_ITEMS_MAX = 20
_CLAUSE_MAX = 100
_DECIMALS = 6


class _AbsentError(Exception):
    """A part of an output that is not there."""


def sentences(bound: Sequence[Bound], steps: Mapping[str, Step], *, chinese: bool) -> Iterator[str]:
    """Give a sentence for each clause, in the order of the request."""
    titles = {one.draft.id: one.clause.text for one in bound}

    for one in bound:
        step = steps.get(one.draft.id)

        if step is not None and step.state is StepState.SUCCEEDED:
            yield _succeeded(one, step, steps, chinese=chinese)
        else:
            yield unsuccessful(one.clause.text, step, titles, chinese=chinese)


def unsuccessful(clause: str, step: Step | None, titles: Mapping[str, str], *, chinese: bool) -> str:
    """Tell of a clause that has no result: failed, skipped, cancelled, or never begun."""
    told = _cut(" ".join(clause.split()), _CLAUSE_MAX, chinese=chinese)
    state = step.state if step is not None else StepState.SKIPPED

    if step is not None and state is StepState.FAILED:
        message = (step.failure.message or step.failure.reason) if step.failure else ""
        message = _cut(message.rstrip(".。"), VALUE_MAX, chinese=chinese)

        if not chinese:
            return f'"{told}" failed: {message}{_stop(message, ".")}'

        # A tool tells its failures in one language; a Chinese sentence says so rather than going on in another.
        own = sum(map(has_chinese, message)) * 2 > sum(map(str.isalpha, message))
        return (
            f"“{told}”失败了：{message}{_stop(message, '。')}"
            if own
            else f"“{told}”没有成功。工具的说明是：“{message}”。"
        )

    if state is StepState.CANCELLED:
        return f"“{told}”被取消了。" if chinese else f'"{told}" was cancelled.'

    cause = titles.get(step.skipped_by, "") if step is not None else ""
    cause = _cut(" ".join(cause.split()), _CLAUSE_MAX, chinese=chinese)

    if cause:
        return (
            f"“{told}”没有执行，因为“{cause}”没有结果。"
            if chinese
            else f'"{told}" was not done, because "{cause}" gave no result.'
        )

    return f"“{told}”没有执行。" if chinese else f'"{told}" was not done.'


def _stop(message: str, sign: str) -> str:
    return "" if message.endswith(("?", "!", "？", "！")) else sign


def plain(title: str, output: Json, *, chinese: bool) -> str:
    """Tell an output without a template."""
    told = _cut(title, _CLAUSE_MAX, chinese=chinese)
    return f"{told}：{show(output, chinese=chinese)}。" if chinese else f"{told}: {show(output)}."


def show(value: Json, *, chinese: bool = False) -> str:
    """Give a value as a sentence tells it: numbers without noise, lists with commas, what is long cut with a mark."""
    return _cut(_shown(value, chinese=chinese), VALUE_MAX, chinese=chinese)


def _succeeded(one: Bound, step: Step, steps: Mapping[str, Step], *, chinese: bool) -> str:
    output = step.result.output if step.result else None
    teller = _Teller(one, output, steps, chinese=chinese)
    told = teller.tell(one.phrase.answer) if one.phrase.answer else ""

    if told.strip():
        return told.strip()

    return plain(" ".join(one.clause.text.split()), _primary(output, one.output.primary), chinese=chinese)


class _Teller:
    """Fills one answer's template."""

    def __init__(self, bound: Bound, output: Json, steps: Mapping[str, Step], *, chinese: bool) -> None:
        self._bound = bound
        self._output = output
        self._steps = steps
        self._chinese = chinese

    def tell(self, sequence: grammar.Sequence) -> str:
        """Give the text; a part that is not there is empty, and with it the brackets around it."""
        return self._fill(sequence, strict=False)

    def _fill(self, sequence: grammar.Sequence, *, strict: bool) -> str:
        told = ""

        for node in sequence:
            match node:
                case Words(text):
                    told += text
                case Slot():
                    try:
                        told += self._value(node)
                    except _AbsentError:
                        if strict:
                            raise
                case Choice(branches=branches):
                    try:
                        told += self._fill(branches[0], strict=True)
                    except _AbsentError:
                        continue

        return told

    def _value(self, slot: Slot) -> str:
        if slot.name in self._bound.values:
            parts = self._bound.values[slot.name]
            told = "".join(part if isinstance(part, str) else self._referred(part) for part in parts)
            return _cut(told, VALUE_MAX, chinese=self._chinese)

        if slot.name != "output":
            raise _AbsentError(slot.name)

        value = _follow(self._output, slot.path) if slot.path else _primary(self._output, self._bound.output.primary)
        return show(value, chinese=self._chinese)

    def _referred(self, part: OutputPart) -> str:
        step = self._steps.get(part.step_id)

        if step is None or step.result is None:
            raise _AbsentError(part.step_id)

        return show(_follow(step.result.output, part.path), chinese=self._chinese)


def _primary(output: Json, name: str) -> Json:
    return output[name] if isinstance(output, dict) and name in output else output


def _follow(value: Json, path: Sequence[str]) -> Json:
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise _AbsentError(name)

    if value is None:
        raise _AbsentError("null")

    return value


def _shown(value: Json, *, chinese: bool) -> str:
    match value:
        case None:
            return "无" if chinese else "nothing"
        case bool():
            return ("是" if value else "否") if chinese else ("yes" if value else "no")
        case float():
            return _number(value)
        case list():
            comma = "、" if chinese else ", "
            told = comma.join(_shown(item, chinese=chinese) for item in value[:_ITEMS_MAX])
            more = len(value) - _ITEMS_MAX
            more_told = (f"等 {len(value)} 项" if chinese else f" and {more} more") if more > 0 else ""
            return told + more_told if value else _shown(None, chinese=chinese)
        case dict():
            colon, comma = ("：", "，") if chinese else (": ", ", ")
            told = comma.join(
                f"{name}{colon}{_shown(item, chinese=chinese)}" for name, item in sorted(value.items())[:_ITEMS_MAX]
            )
            return f"({told})"
        case _:
            return str(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)

    if value and not 1e-3 <= abs(value) < 1e15:
        return f"{value:.{_DECIMALS}g}"

    return f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _cut(text: str, length: int, *, chinese: bool) -> str:
    if len(text) <= length:
        return text

    left = len(text) - length
    return f"{text[:length]}…（还有 {left} 个字符）" if chinese else f"{text[:length]}… ({left} more characters)"
