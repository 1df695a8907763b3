"""How a request is read: of all ways to divide it, the one that leaves nothing unread and is simplest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.backrefs import BackReference
from autoglm_server.planner.rules.clauses import Division, closings, divisions, hollow, joined, openings, polite
from autoglm_server.planner.rules.elisions import Elisions
from autoglm_server.planner.rules.expressions import reckons
from autoglm_server.planner.rules.matcher import Capture, Match, run
from autoglm_server.planner.rules.phrasebook import CompiledPhrase, KnownTool
from autoglm_server.planner.rules.schemas import MisfitError, fit
from autoglm_server.planner.rules.slots import Expression, SlotReader, Written
from autoglm_server.planner.rules.source import Kind, Source

DIVISIONS_MAX = 300
"""In how many places a request may be divided at most."""
CLAUSE_MAX = 400
"""How many atoms a clause may have."""
_INNER_MAX = 60
"""How many dividing words may stand inside one clause."""
_OTHERS_MAX = 8
"""How many other readings of a clause, as good as the first, are kept."""


_OF_WHAT_FOLLOWS = frozenset({"把", "将"})


class TooManyClausesError(ValueError):
    """The request has more places where it may be divided than are looked at."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of the request, and the phrase it was read by (None: no phrase fits). ``stage`` counts the *then* before it.

    ``others`` are readings that are as good by themselves; what a reference means decides between them. ``like`` is the number
    (from 0) of the clause whose phrase was used again, when this one says only what is different.
    """

    text: str
    stage: int
    words: tuple[str, ...]
    phrase: CompiledPhrase | None = None
    captures: tuple[Capture, ...] = ()
    others: tuple[tuple[CompiledPhrase, tuple[Capture, ...]], ...] = ()
    like: int | None = None

    def readings(self) -> Iterator[Clause]:
        """Give the clause in each of its readings, the first one first."""
        yield self

        for phrase, captures in self.others:
            yield replace(self, phrase=phrase, captures=captures)


@dataclass(frozen=True, slots=True)
class _Segment:
    """What lies between two places of division, and whether *then* stands before it."""

    start: int
    end: int
    ordering: bool


_Cost: TypeAlias = tuple[int, int, int, int, int, int]
"""Atoms unread, dividing words inside texts, clauses, fixed words (negative), atoms of text, phrases of the other language.

Smaller is better.
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """A phrase that fits, and what that costs."""

    cost: _Cost
    phrase: CompiledPhrase
    match: Match
    others: tuple[tuple[CompiledPhrase, tuple[Capture, ...]], ...] = ()

    def beside(self, other: _Found) -> _Found:
        """Give this reading with another one that is as good."""
        if len(self.others) >= _OTHERS_MAX or other.phrase.tool == self.phrase.tool:
            return self

        return replace(self, others=(*self.others, (other.phrase, other.match.captures)))


@dataclass(frozen=True, slots=True)
class _Choice:
    """The best way to read up to a place: what it costs, and the last clause of it."""

    cost: _Cost
    first: int
    found: _Found | None


def read(source: Source, tools: Sequence[KnownTool], today: date) -> list[Clause]:
    """Read a request, clause by clause.

    Raises:
        TooManyClausesError: it is beyond :data:`DIVISIONS_MAX`.
    """
    return _Reading(source, tools, today).clauses()


class _Reading:
    """The search, by dynamic programming over the places of division."""

    def __init__(self, source: Source, tools: Sequence[KnownTool], today: date) -> None:
        self._source = source
        found = divisions(source)

        if len(found) > DIVISIONS_MAX:
            raise TooManyClausesError(str(len(found)))

        self._segments = _segments(source, found)
        self._places = [segment.start for segment in self._segments]
        self._dividers = frozenset(atom for division in found for atom in range(division.start, division.end))
        self._reader = SlotReader(source, today, self._dividers)
        words = {atom.key for atom in source.atoms}
        self._tools = {tool.name: tool for tool in tools}
        self._phrases = [phrase for tool in tools for phrase in tool.phrases if phrase.may_fit(words)]

    def clauses(self) -> list[Clause]:
        count = len(self._segments)
        best: list[_Choice | None] = [_Choice((0, 0, 0, 0, 0, 0), 0, None), *[None] * count]

        for first, before in enumerate(best):
            if first == count:
                break

            assert before is not None, "a segment alone is always a way, read or unread"
            segment = self._segments[first]
            found = self._found(first)
            options = {first + 1: _Choice(_sum(before.cost, (segment.end - segment.start, 0, 1, 0, 0, 0)), first, None)}
            options |= {last: _Choice(_sum(before.cost, one.cost), first, one) for last, one in found.items()}

            for last, option in options.items():
                known = best[last]

                if known is None or option.cost < known.cost:
                    best[last] = option

        return self._told(best)

    def _found(self, first: int) -> dict[int, _Found]:
        """Give the best reading of each clause that begins with segment ``first``, by the segment after it."""
        start = self._segments[first].start
        lasts = range(first + 1, min(len(self._segments), first + 1 + _INNER_MAX) + 1)
        lasts_of: dict[int, list[int]] = {}

        for last in lasts:
            end = self._segments[last - 1].end

            if end - start <= CLAUSE_MAX:
                for closing in closings(self._source, start, end):
                    lasts_of.setdefault(closing, []).append(last)

        if not lasts_of:
            return {}

        limit = max(lasts_of)
        words = {self._source.atoms[position].key for position in range(start, limit)}
        phrases = [phrase for phrase in self._phrases if phrase.may_fit(words)]
        best: dict[int, _Found] = {}

        for begin in openings(self._source, start, self._segments[first].end):
            for phrase in phrases:
                if phrase.implicit and not first:
                    continue

                for end, match in run(phrase.program, self._source, self._reader, begin, lasts_of, limit).items():
                    if self._sound(phrase, match):
                        one = _Found(self._cost(phrase, match), phrase, match)

                        for last in lasts_of[end]:
                            if last not in best or one.cost < best[last].cost:
                                best[last] = one
                            elif one.cost == best[last].cost:
                                best[last] = best[last].beside(one)

        return best

    def _cost(self, phrase: CompiledPhrase, match: Match) -> _Cost:
        texts = [capture for capture in match.captures if capture.slot.kind == "text"]
        swallowed = sum(self._divided(capture) for capture in texts)
        loose = sum(capture.end - capture.start for capture in texts)
        return (0, swallowed, 1, -match.fixed_words, loose, int(phrase.chinese != self._source.chinese))

    def _divided(self, capture: Capture) -> int:
        """Give how many segments begin inside what was captured."""
        return bisect_left(self._places, capture.end) - bisect_left(self._places, capture.start + 1)

    def _sound(self, phrase: CompiledPhrase, match: Match) -> bool:
        """Whether the phrase's values fit the tool, and more than chance speaks for it."""
        if not match.fixed_words and not any(_telling(capture) for capture in match.captures):
            return False

        named = self._tools[phrase.tool].input.named

        for capture in match.captures:
            if self._garbled(capture):
                return False

            if capture.slot.name in phrase.followed and not isinstance(capture.value, BackReference):
                return False

            shape = named.get(capture.slot.name)

            if shape is None or isinstance(capture.value, BackReference | Expression):
                continue

            try:
                fit(capture.value, shape)
            except MisfitError:
                return False

        return True

    def _garbled(self, capture: Capture) -> bool:
        """Whether a text begins or ends with a dividing word or has quoted text beside others, or a name has politeness in it."""
        source, start, end = self._source, capture.start, capture.end

        begins = start in self._dividers and source.atoms[start].kind is not Kind.CJK

        if capture.slot.kind == "text" and (begins or end in self._places):
            return True

        if capture.slot.kind == "text" and end > start + 1:
            quoted = [atom.kind is Kind.QUOTED for atom in source.atoms[start:end]]
            behind = source.atoms[start + 1]
            apart = quoted[0] and (behind.spaced or behind.kind is Kind.CJK)
            return apart or (any(quoted) and self._divided(capture) > 0)

        if capture.slot.kind != "name" or not isinstance(capture.value, Written) or capture.value.quoted:
            return False

        bare = openings(source, start, end)[-1], closings(source, start, end)[-1]
        return bare != (start, end) or hollow(source, start, end)

    def _told(self, best: Sequence[_Choice | None]) -> list[Clause]:
        spans: list[tuple[int, int, _Found | None]] = []
        last = len(self._segments)

        while last:
            choice = best[last]
            assert choice is not None
            spans.append((choice.first, last, choice.found))
            last = choice.first

        clauses: list[Clause] = []
        stage = 0
        spans.reverse()

        for first, last, found in spans:
            start, end = self._segments[first].start, self._segments[last - 1].end
            stage += self._segments[first].ordering and bool(clauses)
            words = tuple(self._source.key(position) for position in range(start, min(end, start + CLAUSE_MAX)))
            text = self._source.raw(start, end)
            clause = Clause(text, stage, words)
            clauses.append(
                replace(clause, phrase=found.phrase, captures=found.match.captures, others=found.others)
                if found
                else clause
            )

        return self._filled(
            clauses, [(self._segments[first], self._segments[last - 1].end) for first, last, _ in spans]
        )

    def _filled(self, clauses: list[Clause], spans: Sequence[tuple[_Segment, int]]) -> list[Clause]:
        """Read what says only how it differs from the clause before, then what does so from the clause after."""
        elisions = Elisions(self._source, self._reader)
        begun = [segment.start for segment, _ in spans]

        for index in range(1, len(clauses)):
            clause, model = clauses[index], clauses[index - 1]
            segment, end = spans[index]

            if clause.phrase or not _exemplary(model) or segment.ordering:
                continue

            captures = elisions.after(model.captures, begun[index - 1], segment.start, end)

            if captures:
                like = index - 1 if model.like is None else model.like
                clauses[index] = replace(clause, phrase=model.phrase, captures=captures, like=like)
                begun[index] = begun[index - 1]

        for index in reversed(range(len(clauses) - 1)):
            clause, model = clauses[index], clauses[index + 1]
            segment, end = spans[index]

            if clause.phrase or not _exemplary(model) or spans[index + 1][0].ordering:
                continue

            if captures := elisions.before(model.captures, begun[index + 1], segment.start, end):
                clauses[index] = replace(clause, phrase=model.phrase, captures=captures)

        return clauses


def _exemplary(clause: Clause) -> bool:
    """Whether a clause is read in one way only, by a phrase that has a value of its own and fixed words beside it."""
    return (
        clause.phrase is not None
        and not clause.others
        and bool(clause.captures)
        and bool(clause.phrase.words)
        and not (clause.phrase.implicit and clause.captures[-1].slot.kind in {"number", "integer"})
    )


def _segments(source: Source, found: list[Division]) -> list[_Segment]:
    edges = [Division(0, 0, ordering=False), *found, Division(len(source), len(source), ordering=False)]
    segments: list[_Segment] = []
    ordering = False

    for before, after in pairwise(edges):
        ordering = ordering or before.ordering

        meant = joined(source, before) or joined(source, after)
        empty = hollow(source, before.end, after.start) and (not meant or polite(source, before.end, after.start))

        # 把 is said of what comes after it, also if that looks like a dividing word: 把再见反转.
        empty = empty and source.key(after.start - 1) not in _OF_WHAT_FOLLOWS

        if before.end < after.start and not empty:
            segments.append(_Segment(before.end, after.start, ordering))
            ordering = False

    return segments


def _telling(capture: Capture) -> bool:
    """Whether a value alone, without a fixed word beside it, says that this tool is meant."""
    match capture.value:
        case Expression(parts):
            return reckons(parts)
        case Written(quoted=quoted):
            return capture.slot.kind not in {"text", "name", "word", "unit", "path"} and not quoted
        case BackReference():
            return False
        case _:
            return capture.slot.kind == "numbers"


def _sum(one: _Cost, other: _Cost) -> _Cost:
    a, b, c, d, e, f = other
    return (one[0] + a, one[1] + b, one[2] + c, one[3] + d, one[4] + e, one[5] + f)
