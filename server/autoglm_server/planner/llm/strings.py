"""JSON strings that come in pieces: escapes and surrogate pairs may be cut anywhere."""

from __future__ import annotations

import re
import string

REPLACEMENT = "\ufffd"
"""Stands for what is no character: half of a surrogate pair, an escape that is none."""

_SPECIAL = re.compile(r'["\\]')
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_HEX = frozenset(string.hexdigits)


def whole_characters(text: str) -> tuple[str, str]:
    """Join the surrogate pairs that a decoder left apart; give the text, and half a pair at its end to go on with.

    The text can always be written as UTF-8: half a pair inside it becomes the replacement character.
    """
    if not _SURROGATE.search(text):
        return text, ""

    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    whole = text[: len(text) - len(half)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), half


class StringReader:
    """Reads the inside of one JSON string, from after its opening quote to its closing one."""

    __slots__ = ("_escape", "_high")

    def __init__(self) -> None:
        """Begin after the opening quote."""
        self._escape = ""
        self._high = 0

    def read(self, text: str, position: int) -> tuple[str, int, bool]:
        """Give the characters found from ``position`` on, where reading stopped, and whether the string was closed.

        What is not finished yet (an escape, half a pair) is held back until the next piece. A line break inside the
        string, which JSON forbids and small models write, is taken as it is.
        """
        out: list[str] = []

        while position < len(text):
            if self._escape:
                position += self._take(text[position], out)
                continue

            match = _SPECIAL.search(text, position)
            end = match.start() if match else len(text)

            if end > position:
                self._flush(out)
                out.append(text[position:end])

            if match is None:
                return "".join(out), end, False

            position = end + 1

            if match.group() == '"':
                self._flush(out)
                return "".join(out), position, True

            self._escape = "\\"

        return "".join(out), position, False

    def _take(self, character: str, out: list[str]) -> int:
        """Take the next character of an escape; give 0 if it does not belong to it any more."""
        if len(self._escape) == 1:
            if character == "u":
                self._escape = "\\u"
            else:
                self._escape = ""
                self._flush(out)
                out.append(_ESCAPES.get(character, character))

            return 1

        if character not in _HEX:
            self._escape = ""
            self._flush(out)
            out.append(REPLACEMENT)
            return 0

        self._escape += character

        if len(self._escape) == 6:
            self._code(int(self._escape.removeprefix("\\u"), base=16), out)
            self._escape = ""

        return 1

    def _code(self, code: int, out: list[str]) -> None:
        if 0xDC00 <= code <= 0xDFFF and self._high:
            out.append(chr(0x10000 + ((self._high - 0xD800) << 10) + (code - 0xDC00)))
            self._high = 0
            return

        self._flush(out)

        if 0xD800 <= code <= 0xDBFF:
            self._high = code
        elif 0xDC00 <= code <= 0xDFFF:
            out.append(REPLACEMENT)
        else:
            out.append(chr(code))

    def _flush(self, out: list[str]) -> None:
        """Give up on the other half of a pair."""
        if self._high:
            self._high = 0
            out.append(REPLACEMENT)
