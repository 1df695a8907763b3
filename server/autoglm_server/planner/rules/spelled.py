"""Numbers in English words: five, twenty-one, one hundred and five, two million, three point one four."""

from __future__ import annotations

from autoglm_server.planner.rules.source import Source

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_UNITS = _SMALL | _TENS
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_HUNDRED = "hundred"
_DIGITS_MAX = 12


def read_spelled(source: Source, start: int) -> list[tuple[int, str]]:
    """Give where a number in words that begins at ``start`` may end, the longest first, and its digits."""
    reader = _Reader(source, start)
    return reader.read()[::-1]


class _Reader:
    """How far the words have been read: the sum so far, and the part below a thousand."""

    def __init__(self, source: Source, start: int) -> None:
        self.source = source
        self.position = start
        self.total = 0
        self.group = 0
        self.scale = 10**12
        self.fresh = True  # any number below a hundred may follow: at the beginning, and after a hundred or a scale
        self.ends: list[tuple[int, str]] = []

    def read(self) -> list[tuple[int, str]]:
        key = self.source.key
        article = key(self.position) in {"a", "an"} and (
            key(self.position + 1) in _SCALES or key(self.position + 1) == _HUNDRED
        )

        if article:
            self.position, self.group, self.fresh = self.position + 1, 1, False

        begun = self.position

        while self._word():
            pass

        if self.position > begun:
            self._end()
            self._fraction()

        return self.ends

    def _end(self) -> None:
        self.ends.append((self.position, str(self.total + self.group)))

    def _word(self) -> bool:
        word = self.source.key(self.position)

        if word in _UNITS:
            return self._small(_UNITS[word])

        if word == _HUNDRED and 1 <= self.group < 100:
            self.group *= 100
        elif word in _SCALES and self.group and _SCALES[word] < self.scale:
            self.total, self.group, self.scale = self.total + self.group * _SCALES[word], 0, _SCALES[word]
        else:
            return self._joined(word)

        self.position, self.fresh = self.position + 1, True
        return True

    def _small(self, value: int) -> bool:
        """Take a word below a hundred: where any may stand, or one to nine after twenty, thirty and so on."""
        after_tens = 0 < value < 10 and self.group % 100 >= 20 and self.group % 10 == 0

        if not (self.fresh or after_tens):
            return False

        self.group, self.fresh, self.position = self.group + value, False, self.position + 1
        return True

    def _joined(self, sign: str) -> bool:
        """Take the sign in twenty-one, and the *and* in a hundred and one; the number may also end before the *and*."""
        following = self.source.key(self.position + 1)

        if following not in _UNITS:
            return False

        tens = self.group % 100 >= 20 and self.group % 10 == 0
        hyphen = sign == "-" and tens and 0 < _UNITS[following] < 10 and not self.source.atoms[self.position].spaced
        conjunction = sign == "and" and self.fresh and bool(self.total or self.group)

        if conjunction:
            self._end()

        self.position += hyphen or conjunction
        return hyphen or conjunction

    def _fraction(self) -> None:
        digits = ""
        position = self.position + 1

        while self.source.key(self.position) == "point" and len(digits) < _DIGITS_MAX:
            digit = _SMALL.get(self.source.key(position), 10)

            if digit > 9:
                break

            digits, position = digits + str(digit), position + 1

        if digits:
            self.ends.append((position, f"{self.total + self.group}.{digits}"))
