"""The phrases nearest to a clause that none of them fits, by the words they share and by words that are almost the same."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from autoglm_server.planner.rules.phrasebook import CompiledPhrase, KnownTool
from autoglm_server.planner.rules.source import words_of

_WORDS_MAX = 40
_ALMOST = 0.75
_COVERED_MIN = 0.6
_SHARED_MIN = 0.3
_COMMON = frozenset(
    {
        "a",
        "an",
        "the",
        "of",
        "in",
        "to",
        "is",
        "it",
        "for",
        "on",
        "and",
        "what",
        "how",
        "with",
        "by",
        "from",
        "my",
        "me",
        "i",
        "do",
    }
    | set("的了是在我给请有和一个把，。！？：；、,.?!:;'\"")
)


def nearest_phrases(
    words: Sequence[str], tools: Sequence[KnownTool], *, chinese: bool, count: int = 3
) -> list[CompiledPhrase]:
    """Give up to ``count`` phrases, the nearest first, each of another shape.

    A phrase is near when most of what it cannot do without is in the clause, and it accounts for a good part of the clause.
    """
    wanted = [word for word in words[:_WORDS_MAX] if word and word not in _COMMON and not word.isdigit()]
    scored: list[tuple[float, bool, str, CompiledPhrase]] = []

    for tool in tools:
        named = frozenset(word for word in words_of(f"{tool.name} {tool.title}") if word not in _COMMON)

        for phrase in tool.phrases:
            near = not phrase.followed and not phrase.bare and _covered(wanted, phrase) >= _COVERED_MIN
            score = _score(wanted, phrase, named) if near else 0.0

            if score >= _SHARED_MIN * len(wanted) and score > 0:
                scored.append((-score, phrase.chinese != chinese, phrase.readable, phrase))

    shapes: dict[str, CompiledPhrase] = {}

    for _, _, readable, phrase in sorted(scored, key=lambda one: one[:3]):
        shapes.setdefault(readable, phrase)

    return list(shapes.values())[:count]


def _covered(wanted: Sequence[str], phrase: CompiledPhrase) -> float:
    """Give how much of what a phrase cannot do without is in the clause, from 0 to 1; common words do not count."""
    groups = [group for group in phrase.required if group.isdisjoint(_COMMON)]
    found = sum(max((_likeness(word, other) for word in wanted for other in group), default=0.0) for group in groups)
    return found / len(groups) if groups else 0.0


def _score(wanted: Sequence[str], phrase: CompiledPhrase, named: frozenset[str]) -> float:
    told = phrase.words - _COMMON
    shared = sum(max((_likeness(word, other) for other in told), default=0.0) for word in wanted)
    shared += 0.5 * sum(word in named for word in wanted)
    return shared / (1 + 0.1 * len(told))


def _likeness(word: str, other: str) -> float:
    if word == other:
        return 1.0

    if min(len(word), len(other)) < 4 or word[0] != other[0] or abs(len(word) - len(other)) > 3 or len(word) > 40:
        return 0.0

    ratio = SequenceMatcher(None, word, other).ratio()
    return ratio if ratio >= _ALMOST else 0.0
