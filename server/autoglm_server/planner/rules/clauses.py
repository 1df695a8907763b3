"""Where a request may be divided into clauses, and what may be left out at a clause's ends."""

from __future__ import annotations

from collections.abc import Iterable

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.source import Kind, Source, words_of

_THEN = """
    then | after that | afterwards | after this | next | finally | lastly | followed by | once done | when done
    然后 | 接着 | 之后 | 随后 | 而后 | 再 | 最后 | 接下来 | 完成后 | 此后 | 紧接着
"""
_AND = """
    and | also | as well as | along with | & | , | ; | ? | !
    并且 | 并 | 和 | 以及 | 同时 | 另外 | 还有 | 而且 | 、 | 与 | 也 | 。
"""
_OPENING = """
    please | pls | kindly | can you | could you | would you | will you | can i | may i | you | would you mind | go ahead and
    i want to | i want you to | i would like to | i'd like to | i would like you to | i'd like you to | i need to | i need you to
    i want | i need | i would like | i'd like | i want to know | i'd like to know | i need to know | do you know
    help me | help me to | let me know | let's | let us | tell me | show me | give me | find out
    what is | what's | whats | what are | what was | how much is | how much are | what does
    hey | hi | hello | ok | okay | so | first | firstly | second | third | now | just | to | but | both
    请 | 请问 | 请你 | 请帮我 | 请教 | 问一下 | 帮我 | 帮忙 | 帮我看看 | 麻烦 | 麻烦你
    你能 | 你能不能
    能不能 | 能否 | 可以 | 可不可以
    您 | 你
    我想 | 我要 | 我想要 | 我想知道 | 我需要 | 告诉我 | 给我
    看看 | 看一下 | 先 | 首先 | 你好 | 那么 | 把 | 将
"""
_CLOSING = """
    please | pls | for me | now | right now | at the moment | thanks | thank you | ok | okay | too | as well
    first | instead | again | equal | equals | is what | is how much | = | . | ... | … | : | ~ | ? | !
    吧 | 呢 | 吗 | 啊 | 呀 | 哦 | 谢谢 | 谢谢你 | 多谢 | 一下 | 好吗 | 可以吗 | 行吗 | 给我 | 即可
    是多少 | 等于多少 | 多少 | 是什么 | 等于几 | 是几 | 等于
"""
_FILLERS_MAX = 6
_JOINING = frozenset({"and", "&", "和", "与", "以", "并"})
_POLITE = frozenset(
    {
        *("please", "pls", "kindly", "thanks", "thank", "you", "also", "ok", "okay"),
        *"请谢多劳烦麻",
    }
)


def _listed(text: str) -> list[tuple[str, ...]]:
    return [words_of(phrase) for line in text.strip().splitlines() for phrase in line.split(" | ")]


def _table(phrases: Iterable[tuple[str, ...]], *, by: int = 0) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Arrange phrases by their first word, or by their last (-1), the longest first."""
    table: dict[str, list[tuple[str, ...]]] = {}

    for words in sorted(phrases, key=len, reverse=True):
        table.setdefault(words[by], []).append(words)

    return {word: tuple(rest) for word, rest in table.items()}


_DIVIDERS = _table(_listed(_THEN) + _listed(_AND))
_ORDERING = frozenset(_listed(_THEN))
_OPENERS = _table(_listed(_OPENING))
_ENDINGS = _table(_listed(_CLOSING), by=-1)
_FILLERS = _table(_listed(_OPENING) + _listed(_CLOSING))


@dataclass(frozen=True, slots=True)
class Division:
    """A place where a request may be divided: the atoms from ``start`` to ``end`` would belong to neither clause.

    ``ordering`` tells that it says *then*.
    """

    start: int
    end: int
    ordering: bool


def divisions(source: Source) -> list[Division]:
    """Find every place where the request may be divided; words in a row make one place."""
    found: list[Division] = []
    position = 0

    while position < len(source):
        start, ordering = position, False

        while position < len(source) and (length := _divider(source, position)):
            ordering = ordering or tuple(source.key(index) for index in range(position, position + length)) in _ORDERING
            position += length

        line_ends = start > 0 and source.atoms[start].new_line and not (found and found[-1].end == start)

        if position > start or line_ends:
            found.append(Division(start, position, ordering))

        position += position == start

    return found


def _divider(source: Source, position: int) -> int:
    """Give how many atoms the divider has that begins here; 0 if there is none."""
    atom = source.atoms[position]

    if enumerator := _enumerator(source, position):
        return enumerator

    if atom.key in {",", "."} and not _divides(source, position):
        return 0

    if atom.key == "和" and position and source.key(position - 1) == "的":
        return 0  # 的和 is a sum, not two clauses

    if atom.key == ".":
        return 1

    return next((len(words) for words in _DIVIDERS.get(atom.key, ()) if source.starts_with(position, words)), 0)


def _enumerator(source: Source, position: int) -> int:
    """Give the length of what numbers a line of a list: ``1.``, ``2)``, ``-``."""
    first = source.atoms[position]
    second = source.atoms[position + 1] if position + 1 < len(source) else None

    if (position and not first.new_line) or second is None:
        return 0

    if first.key in {"-", "*", "•"} and second.spaced:
        return 1

    third = source.atoms[position + 2] if position + 2 < len(source) else None
    numbered = (
        first.kind is Kind.DIGITS and len(first.key) <= 2 and second.key in {".", ")", "、"} and not second.spaced
    )
    if not numbered or third is None:
        return 0

    # 1、加 numbers a line; 3、9、4 is a list of numbers.
    return 2 if third.spaced or (second.key == "、" and third.kind is not Kind.DIGITS) else 0


def _divides(source: Source, position: int) -> bool:
    """Whether a comma or full stop may stand between clauses, and not in a number (``1,234``), a name or a path."""
    after = position + 1
    spaced = after >= len(source) or source.atoms[after].spaced or source.atoms[after].new_line

    if source.key(position) == ".":
        return spaced and not source.atoms[position].spaced

    digits = source.key(position - 1).isdigit() and source.key(after).isdigit()
    return spaced or not digits or len(source.key(after)) != 3 or source.raw(position, after) != ","


def openings(source: Source, start: int, end: int) -> list[int]:
    """Give where a clause may be taken to begin: as written, then without one filler, without two, and so on."""
    starts = [start]

    while len(starts) <= _FILLERS_MAX and starts[-1] < end:
        position = starts[-1]
        words = next(
            (words for words in _OPENERS.get(source.key(position), ()) if source.starts_with(position, words)), None
        )

        if words is None or position + len(words) >= end:
            break

        starts.append(position + len(words))

    return starts


def closings(source: Source, start: int, end: int) -> list[int]:
    """Give where a clause may be taken to end, likewise."""
    ends = [end]

    while len(ends) <= _FILLERS_MAX and ends[-1] > start:
        position = ends[-1]
        words = next(
            (
                words
                for words in _ENDINGS.get(source.key(position - 1), ())
                if position - len(words) > start and source.starts_with(position - len(words), words)
            ),
            None,
        )

        if words is None:
            break

        ends.append(position - len(words))

    return ends


def joined(source: Source, division: Division) -> bool:
    """Whether a division says *and*: what stands beside it is then no mere greeting, but belongs to the request."""
    return not division.ordering and any(source.key(at) in _JOINING for at in range(division.start, division.end))


def polite(source: Source, start: int, end: int) -> bool:
    """Whether there are thanks and requests alone, which may be joined to anything: *and thank you*."""
    return all(source.key(position) in _POLITE for position in range(start, end))


def hollow(source: Source, start: int, end: int) -> bool:
    """Whether nothing but fillers lies between: *Hi*, *please*, 谢谢."""
    position = start

    while position < end:
        fillers = _FILLERS.get(source.key(position), ())
        words = next(
            (words for words in fillers if position + len(words) <= end and source.starts_with(position, words)), None
        )

        if words is None:
            return False

        position += len(words)

    return True
