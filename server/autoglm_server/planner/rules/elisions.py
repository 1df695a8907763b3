"""Clauses that say only what is different from the one beside them: *the time in Berlin and in London*, 东京和伦敦现在几点.

Such a clause is read by the phrase of its neighbour, with one value in place of another: forwards the last one, backwards the
first. Only values that cannot be mistaken for a request of their own are taken so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoglm_server.planner.rules.backrefs import BackReference
from autoglm_server.planner.rules.clauses import closings, hollow, openings
from autoglm_server.planner.rules.matcher import Capture
from autoglm_server.planner.rules.slots import SlotReader, Value, Written
from autoglm_server.planner.rules.source import Kind, Source

_KINDS = frozenset(
    {"name", "unit", "word", "path", "file", "date", "time", "choice", "quoted", "text", "number", "integer"}
)
_COUNTED = frozenset({"number", "integer"})
_WORDS_MAX = 3
_JOINING = frozenset({"和", "与", "及", "、", "以", "还"})
_PATH_LIKE = re.compile(r"[\w/\\~]\S*[./\\]\S*\w|.*[/\\]")


class Elisions:
    """Reads what was left out in one request."""

    def __init__(self, source: Source, reader: SlotReader) -> None:
        """Read from ``source`` the values that ``reader`` gives."""
        self._source = source
        self._reader = reader

    def after(self, captures: Sequence[Capture], begun: int, start: int, end: int) -> tuple[Capture, ...] | None:
        """Give the captures of the clause before, the last of them read anew from ``start``; None if that cannot be.

        ``begun`` is where the clause before begins. What stood before its last value may be said again: *and in London*.
        """
        last = max(captures, key=lambda capture: capture.start)
        ended = max((capture.end for capture in captures if capture is not last), default=begun)
        lead = [self._source.key(position) for position in range(min(ended, last.start), last.start)]

        for begin in openings(self._source, start, end):
            for length in range(len(lead) + 1):
                words = tuple(lead[len(lead) - length :])

                if begin + length < end and self._source.starts_with(begin, words):
                    found = self._again(last, captures, begin + length, end, said=length > 0)

                    if found is not None:
                        return found

        return None

    def before(self, captures: Sequence[Capture], begun: int, start: int, end: int) -> tuple[Capture, ...] | None:
        """Give the captures of the clause after, the first of them read anew from ``start``; None if that cannot be.

        ``begun`` is where the clause after begins: with the value itself, or politeness and then the value.
        """
        first = min(captures, key=lambda capture: capture.start)
        leading = first.start in openings(self._source, begun, first.start + 1)

        if not leading or not self._joined(end) or any(isinstance(one.value, BackReference) for one in captures):
            return None

        for begin in openings(self._source, start, end):
            if (found := self._again(first, captures, begin, end, said=False)) is not None:
                return found

        return None

    def _joined(self, position: int) -> bool:
        return self._source.key(position) in _JOINING | {"and", ","}

    def _again(
        self, old: Capture, captures: Sequence[Capture], start: int, end: int, *, said: bool
    ) -> tuple[Capture, ...] | None:
        kind = old.slot.kind

        if kind not in _KINDS or isinstance(old.value, BackReference) or (kind in _COUNTED and len(captures) > 1):
            return None

        ends = closings(self._source, start, end)

        for stop, value in self._reader.read("quoted" if kind == "text" else kind, old.slot.choices, start):
            if (
                stop in ends
                and not isinstance(value, BackReference)
                and self._alike(old, value, start, stop, end, said)
            ):
                new = Capture(old.slot, value, start, stop)
                return tuple(new if capture is old else capture for capture in captures)

        return None

    def _polite(self, start: int, stop: int) -> bool:
        """Whether there is politeness in a name, or nothing else."""
        bare = openings(self._source, start, stop)[-1], closings(self._source, start, stop)[-1]
        return bare != (start, stop) or hollow(self._source, start, stop)

    def _alike(self, old: Capture, value: Value, start: int, stop: int, end: int, said: bool) -> bool:  # noqa: FBT001
        """Whether a value is of the same make as the old one, and so not the beginning of another request."""
        if not isinstance(value, Written) or value.quoted:
            return not isinstance(old.value, Written) or old.value.quoted

        atoms = self._source.atoms[start:stop]

        if old.slot.kind in {"path", "file"}:
            return _PATH_LIKE.fullmatch(value.text) is not None

        if old.slot.kind not in {"name", "unit", "word"}:
            return True

        if self._polite(start, stop) or (not said and sum(atom.kind is Kind.WORD for atom in atoms) > _WORDS_MAX):
            return False

        if atoms[0].kind is Kind.CJK:
            asked = any(self._source.key(position) == "呢" for position in range(stop, end))
            return asked or not _JOINING.isdisjoint({self._source.key(stop), self._source.key(start - 1)})

        capital = self._source.raw(old.start, old.end)[:1].isupper()
        return said or old.slot.kind != "name" or not capital or value.text[:1].isupper()
