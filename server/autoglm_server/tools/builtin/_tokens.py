"""Reading an arithmetic expression into tokens: symbols, and the words of English and Chinese that stand for them."""

# ruff: noqa: RUF001 - the signs that people type
from __future__ import annotations

import difflib
import math
import re
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Final, NoReturn

from autoglm._dataclasses import dataclass
from autoglm.tool import ToolError
from autoglm_server.tools.builtin._numbers import DIGITS_MAX, Number, multiply, settle, too_large
from autoglm_server.tools.builtin._numerals import CHINESE, ENGLISH, SCALES, chinese_number, english_number

LENGTH_MAX: Final = 4_000
"""Characters of an expression."""

CONSTANTS: Final[MappingProxyType[str, float]] = MappingProxyType({"pi": math.pi, "e": math.e})
"""The constants, by name."""

_ONE_TO_ONE: Final = str.maketrans(
    {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    | {0x3000: ord(" "), 0xA0: ord(" ")}
    | {ord(left): ord(right) for left, right in zip("×✕⋅·∙÷∕−–—、【】[]{}", "*****//---,()()()", strict=True)},
)
"""Full-width forms, mathematical signs and other brackets, one character for one: positions stay true."""

_BEFORE: Final = re.compile(
    r"\s*(?:what's\b|what\s+is\b|how\s+much\s+is\b|calculate\b|compute\b|计算|求)?\s*", re.IGNORECASE
)
_AFTER: Final = re.compile(r"(?:等于多少|等于几|等于|是多少)?[=?。\s]*\Z")

_SIGNS: Final = MappingProxyType(
    {
        "+": ("plus", "加上", "加"),
        "-": ("minus", "减去", "减"),
        "*": ("times", "multiplied by", "x", "乘以", "乘上", "乘"),
        "/": ("divided by", "over", "除以"),
        "%": (),
        "percent": ("per cent",),
        "mod": ("mod", "modulo", "取余", "模"),
        "^": ("**", "to the power of", "raised to the power of", "raised to"),
        "!": (),
        "(": (),
        ")": (),
        ",": (),
        "//": (),
        "of": ("of", "的"),
        "off": ("off",),
        "百分之": ("百分之",),
        "分之": ("分之",),
        "次方": ("次方", "次幂"),
        "倍": ("倍",),
        "squared": ("squared", "²", "平方"),
        "cubed": ("cubed", "³", "立方"),
        "half": ("half", "一半"),
        "°": ("degrees", "degree", "deg", "度"),
    },
)
_FUNCTIONS: Final = MappingProxyType(
    {
        "sqrt": ("square root", "√", "平方根", "开平方", "开方", "根号"),
        "cbrt": ("cube root", "立方根", "开立方"),
        "abs": ("absolute value", "绝对值"),
        "factorial": ("阶乘",),
        "square": (),
        "cube": (),
        "ceil": ("ceiling",),
        "floor": (),
        "trunc": (),
        "round": ("四舍五入",),
        "min": ("minimum", "最小值"),
        "max": ("maximum", "最大值"),
        "sum": ("总和",),
        "product": ("乘积",),
        "average": ("avg", "mean", "平均值", "平均数"),
        "median": ("中位数",),
        "gcd": ("greatest common divisor", "最大公约数"),
        "lcm": ("least common multiple", "最小公倍数"),
        "log": (),
        "log10": ("lg",),
        "log2": (),
        "ln": ("natural log", "natural logarithm"),
        "exp": (),
        "sin": (),
        "cos": (),
        "tan": (),
        "asin": ("arcsin",),
        "acos": ("arccos",),
        "atan": ("arctan",),
    },
)
_MEANINGS: Final = MappingProxyType(
    {word: ("sign", sign) for sign, words in _SIGNS.items() for word in (sign, *words)}
    | {word: ("function", name) for name, words in _FUNCTIONS.items() for word in (name, *words)}
    | {word: ("constant", word) for word in CONSTANTS}
    | {"π": ("constant", "pi")}
    | {word: ("skipped", word) for word in ("the", "a", "an")},
)


def _alternative(word: str) -> str:
    pattern = r"\s+".join(re.escape(part) for part in word.split())
    return pattern + "(?![A-Za-z])" if word[-1].isascii() and word[-1].isalpha() else pattern


_PLAIN: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
_CURRENCY: Final = re.compile(r"[$€£¥]")
_UNKNOWN: Final = re.compile(r"[^\W\d_]+|.", re.DOTALL)


@cache  # when it is first used: at its start a server calculates nothing
def _word() -> re.Pattern[str]:
    return re.compile("|".join(map(_alternative, sorted(_MEANINGS, key=len, reverse=True))), re.IGNORECASE)


@cache
def _scale() -> re.Pattern[str]:
    words = "|".join(_alternative(word) for word in sorted(SCALES, key=len, reverse=True))
    return re.compile(rf"\s*(?:{words})(?!分之)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """One token. ``kind`` is number, sign, function, constant or end; ``text`` says which one, or the number as written."""

    kind: str
    text: str
    position: int
    value: Number = 0


def syntax(message: str, position: int) -> ToolError:
    """Make the error of an expression that cannot be read; ``position`` counts characters from 0."""
    return ToolError(
        f"{message} (at character {position + 1})",
        reason="SYNTAX",
        metadata={"position": str(position + 1)},
    )


def tokens(expression: str) -> list[Token]:
    """Read ``expression``; the last token is the end.

    Raises:
        ToolError: SYNTAX or TOO_LARGE.
    """
    if len(expression) > LENGTH_MAX:
        raise ToolError(
            f"the expression has {len(expression):,} characters, the most is {LENGTH_MAX:,}; calculate it in parts",
            reason="TOO_LARGE",
        )

    return _Reader(expression.translate(_ONE_TO_ONE)).read()


class _Reader:
    """Reads one expression; keeps which parentheses hold a function's arguments, where a comma never groups digits."""

    def __init__(self, text: str) -> None:
        before = _BEFORE.match(text)
        after = _AFTER.search(text)
        self._text = text
        self._at = before.end() if before else 0
        self._end = max(after.start() if after else len(text), self._at)
        self._tokens: list[Token] = []
        self._parentheses: list[bool] = []
        self._currency = ""

    def read(self) -> list[Token]:
        while self._at < self._end:
            if self._text[self._at].isspace():
                self._at += 1
            elif not (self._number() or self._word() or self._sign_of_money()):
                self._refuse()

        self._tokens.append(Token("end", "the end", self._end))
        return self._tokens

    def _number(self) -> bool:
        """Take a number, in digits or words, and the scales after it."""
        arguments = bool(self._parentheses) and self._parentheses[-1]
        text = self._text
        if match := (None if arguments else _GROUPED.match(text, self._at)) or _PLAIN.match(text, self._at):
            value = _value(match[0].replace(",", ""), self._at)
        elif match := ENGLISH.match(text, self._at):
            try:
                value = english_number(match[0])
            except ValueError:
                raise syntax(f"{match[0]!r} is no number", self._at) from None
        elif match := self._chinese():
            try:
                value = _value(chinese_number(match[0]), self._at)
            except ValueError:
                raise syntax(f"{match[0]!r} is no number", self._at) from None
        else:
            return False

        start, self._at = self._at, match.end()
        value = self._scaled(value)
        self._tokens.append(Token("number", self._text[start : self._at], start, value))
        return True

    def _chinese(self) -> re.Match[str] | None:
        """Match a Chinese number where no longer word begins, such as 百分之 or 一半."""
        word = _word().match(self._text, self._at)
        match = CHINESE.match(self._text, self._at)
        return None if word and match and word.end() > match.end() - 1 else match

    def _scaled(self, value: Number) -> Number:
        while match := _scale().match(self._text, self._at):
            value = multiply(value, SCALES[match[0].strip().lower()])
            self._at = match.end()

        return value

    def _word(self) -> bool:
        match = _word().match(self._text, self._at)
        if match is None:
            return False

        kind, meaning = _MEANINGS[" ".join(match[0].lower().split())]
        if meaning == "(":
            self._parentheses.append(bool(self._tokens) and self._tokens[-1].kind == "function")
        elif meaning == ")" and self._parentheses:
            self._parentheses.pop()

        if kind != "skipped":
            self._tokens.append(Token(kind, meaning, self._at))

        self._at = match.end()
        return True

    def _sign_of_money(self) -> bool:
        """Skip a currency sign; amounts of two currencies are not one sum."""
        match = _CURRENCY.match(self._text, self._at)
        if match is None:
            return False

        if self._currency not in ("", match[0]):
            raise syntax(f"{self._currency} and {match[0]} are two currencies; convert one first", self._at)

        self._currency, self._at = match[0], match.end()
        return True

    def _refuse(self) -> NoReturn:
        found = _UNKNOWN.match(self._text, self._at)
        word = found[0] if found else ""
        near = difflib.get_close_matches(word.lower()[:40], list(_MEANINGS), n=1) if len(word) > 1 else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise syntax(f"{word[:40]!r} is no number, operator or function{hint}", self._at)


def _value(text: str, position: int) -> Number:
    """Give the exact value of a number in digits, its size checked before it is computed."""
    mantissa, _, exponent = text.lower().partition("e")
    digits = mantissa.replace(".", "").strip("0")
    if len(digits) > DIGITS_MAX or (digits and len(exponent.lstrip("+-0")) > 5) or abs(int(exponent or 0)) > DIGITS_MAX:
        raise too_large(f"the number at character {position + 1}")

    return settle(Fraction(text), f"the number at character {position + 1}")
