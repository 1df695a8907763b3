"""How far one word is from another, and which known words are nearest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LENGTH_MAX = 40


def edits(one: str, other: str, most: int = 2) -> int:
    """Count the letters to be put in, left out, changed or swapped with their neighbour; ``most`` + 1 for any more."""
    if abs(len(one) - len(other)) > most or max(len(one), len(other)) > _LENGTH_MAX:
        return most + 1

    before: list[int] = []
    row = list(range(len(other) + 1))

    for i, left in enumerate(one, start=1):
        older, before, row = before, row, [i]

        for j, right in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))

            if i > 1 and j > 1 and left == other[j - 2] and right == one[i - 2]:
                cost = min(cost, older[j - 2] + 1)

            row.append(cost)

        if min(row) > most:
            return most + 1

    return min(row[-1], most + 1)


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Give up to ``count`` of the known words: those that the fewest edits away, else those that have most in common with it."""
    names = dict.fromkeys(known)
    most = 1 if len(word) < 5 else 2
    letters = sorted(word)
    # Letters in the wrong order are a likelier mistake than others.
    close = sorted(
        (distance, sorted(name) != letters, word[:1] != name[:1], name)
        for name in names
        if (distance := edits(word, name, most)) <= most
    )
    found = [one[-1] for one in close if one[:2] == close[0][:2]]
    alike = difflib.get_close_matches(word, names, n=count, cutoff=0.75) if not found else []
    return (found or alike)[:count]
