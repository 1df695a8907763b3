"""How many tokens a text has, about: no tokenizer is loaded, and every model has another."""

from __future__ import annotations

from typing import Final

from autoglm._dataclasses import dataclass

CHARS_A_TOKEN: Final = 4
"""About how many characters of English or JSON are one token; every other character counts as a token."""


@dataclass(slots=True)
class TokenCount:
    """Counts the tokens of a text that comes in pieces."""

    plain: int = 0
    other: int = 0

    def add(self, text: str) -> None:
        """Count more of the text."""
        plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
        self.plain += plain
        self.other += len(text) - plain

    @property
    def tokens(self) -> int:
        """About how many tokens the text has so far; at least 1 if there is any."""
        return -(-self.plain // CHARS_A_TOKEN) + self.other


def tokens_in(text: str) -> int:
    """Give about how many tokens a text has."""
    count = TokenCount()
    count.add(text)
    return count.tokens
