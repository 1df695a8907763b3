"""Arithmetic in a request, read in one pass from left to right and rewritten in signs alone."""

from __future__ import annotations

import re
from typing import TypeAlias

from autoglm_server.planner.rules.backrefs import BackReference, read_back_reference
from autoglm_server.planner.rules.numerals import Number, read_number
from autoglm_server.planner.rules.source import Source

Parts: TypeAlias = tuple[str | BackReference, ...]
"""Arithmetic as text, between the pieces of which references to earlier clauses may stand."""

_ATOMS_MAX = 400
_ROOTS_MAX = 32
"""How many roots in words are read; they may stand inside each other."""
_ISO_DATE = re.compile(r"(?:\d{4}([-/])\d{1,2}\1\d{1,2}|\d{1,2}/\d{1,2}/\d{4})(?!\d)")
_CONSTANTS = {"pi": "pi", "π": "pi", "e": "e", "tau": "tau"}
_NAMED = {("圆", "周", "率"): "pi", ("自", "然", "常", "数"): "e"}
_ROOTS = {
    ("the", "square", "root", "of"): "sqrt",
    ("square", "root", "of"): "sqrt",
    ("the", "cube", "root", "of"): "cbrt",
    ("cube", "root", "of"): "cbrt",
    ("根", "号"): "sqrt",
    ("√",): "sqrt",
}
_FUNCTIONS = frozenset(
    {
        "abs",
        "acos",
        "asin",
        "atan",
        "atan2",
        "average",
        "avg",
        "cbrt",
        "ceil",
        "cos",
        "cosh",
        "degrees",
        "exp",
        "factorial",
        "floor",
    }
    | {
        "gcd",
        "hypot",
        "lcm",
        "ln",
        "log",
        "log10",
        "log2",
        "max",
        "mean",
        "median",
        "min",
        "mod",
        "pow",
        "product",
        "radians",
    }
    | {"round", "sin", "sinh", "sqrt", "sum", "tan", "tanh", "trunc"},
)
_OPERATORS: dict[tuple[str, ...], str] = {
    ("raised", "to", "the", "power", "of"): "^",
    ("to", "the", "power", "of"): "^",
    ("multiplied", "by"): "*",
    ("divided", "by"): "/",
    ("*", "*"): "^",
    ("加", "上"): "+",
    ("减", "去"): "-",
    ("乘", "以"): "*",
    ("乘", "上"): "*",
    ("除", "以"): "/",
    ("plus",): "+",
    ("minus",): "-",
    ("times",): "*",
    ("over",): "/",
    ("mod",): "mod",
    ("modulo",): "mod",
    ("x",): "*",
    ("×",): "*",
    ("·",): "*",
    ("÷",): "/",
    ("加",): "+",
    ("减",): "-",
    ("乘",): "*",
    ("+",): "+",
    ("-",): "-",
    ("−",): "-",
    ("*",): "*",
    ("/",): "/",
    ("^",): "^",
}
_POSTFIXES: dict[tuple[str, ...], str] = {
    ("的", "平", "方"): " ^ 2",
    ("的", "立", "方"): " ^ 3",
    ("squared",): " ^ 2",
    ("cubed",): " ^ 3",
    ("percent",): "%",
    ("per", "cent"): "%",
    ("%",): "%",
}


def read_expression(source: Source, start: int) -> list[tuple[int, Parts]]:
    """Give where arithmetic that begins at ``start`` may end, the longest first, and its text. A date is none."""
    if _ISO_DATE.match(source.text, source.atoms[start].start):
        return []

    return _Reader(source, start).read()


def reckons(parts: Parts) -> bool:
    """Whether there is something to reckon: an operator, a percentage, a function."""
    return len(parts) > 1 or (isinstance(parts[0], str) and parts[0].endswith("%"))


class _Reader:
    """How far the arithmetic has been read."""

    def __init__(self, source: Source, start: int) -> None:
        self.source = source
        self.position = start
        self.stop = min(len(source), start + _ATOMS_MAX)
        self.parts: list[str | BackReference] = []
        self.open: list[tuple[int, bool]] = []  # where a parenthesis began in parts, and whether it is a function's
        self.operand = 0  # where the last operand began in parts
        self.ends: list[tuple[int, Parts]] = []
        self.roots = 0

    def read(self) -> list[tuple[int, Parts]]:
        while self.position < self.stop and self._operand() and self._operator():
            pass

        return self.ends[::-1]

    def _operand(self) -> bool:
        """Take signs, parentheses and functions that open, and the number, constant or reference after them."""
        self.operand = len(self.parts)

        while (sign := self.source.key(self.position)) in {"(", "+", "-", "−"} or (name := self._function()):
            if sign in {"(", "+", "-", "−"}:
                self.parts.append({"−": "-"}.get(sign, sign))
                self.position += 1
            else:
                self.parts.append(f"{name}(")

            if sign not in {"+", "-", "−"}:
                self.open.append((self.operand, sign != "("))
                self.operand = len(self.parts)

            if self.position >= self.stop:
                return False

        return self._value()

    def _function(self) -> str:
        """Take the name of a function and its parenthesis, and give the name; empty if there is none."""
        for length in (1, 2):
            name = "".join(self.source.key(self.position + index) for index in range(length))

            if name in _FUNCTIONS and self.source.key(self.position + length) == "(":
                self.position += length + 1
                return name

        return ""

    def _value(self) -> bool:
        if root := _longest(self.source, self.position, _ROOTS):
            return self._root(*root)

        numbers = read_number(self.source, self.position)
        references = read_back_reference(self.source, self.position)
        named = _longest(self.source, self.position, _NAMED)
        constant, length = named or (_CONSTANTS.get(self.source.key(self.position)), 1)

        if numbers:
            # Without a % behind it, which is looked at by itself.
            self.position, number = next(
                one for one in numbers if not one[1].written.endswith("%") or one is numbers[-1]
            )
            self.parts.append(number.written)
        elif references:
            self.position, reference = references[0]
            self.parts.append(reference)
        elif constant:
            self.position += length
            self.parts.append(constant)

        return bool(numbers or references or constant)

    def _root(self, name: str, words: int) -> bool:
        """Take a root without parentheses, of the one value after it: 根号2, the square root of 2."""
        self.position += words
        self.roots += 1

        if self.roots > _ROOTS_MAX:
            return False

        if self.source.key(self.position) == "(":
            self.position += 1
            self.parts.append(f"{name}(")
            self.open.append((self.operand, True))
            self.operand = len(self.parts)
            return self._operand()

        self.parts.append(f"{name}(")
        taken = self.position < self.stop and self._value()
        self.parts.append(")")
        return taken

    def _operator(self) -> bool:
        """Take what may stand after an operand, up to an operator; False when there is none."""
        while True:
            if not self.open:
                self.ends.append((self.position, tuple(self.parts)))

            if self.position >= self.stop:
                return False

            if self._infix():
                return True

            if not (self._close() or self._percentage() or self._power() or self._postfix()):
                return False

    def _infix(self) -> bool:
        key = self.source.key(self.position)

        if key == "," and self.open and self.open[-1][1]:
            return self._write(", ", 1)

        if key == "of" and isinstance(last := self.parts[-1], str) and last.endswith("%"):
            return self._write(" of ", 1)

        if key == "%" and (self.source.key(self.position + 1).isdigit() or self.source.key(self.position + 1) == "("):
            return self._write(" % ", 1)

        found = _longest(self.source, self.position, _OPERATORS)
        return found is not None and self._write(f" {found[0]} ", found[1])

    def _write(self, text: str, atoms: int) -> bool:
        self.parts.append(text)
        self.position += atoms
        return True

    def _close(self) -> bool:
        if self.source.key(self.position) != ")" or not self.open:
            return False

        self.operand = self.open.pop()[0]
        self.parts.append(")")
        self.position += 1
        return True

    def _percentage(self) -> bool:
        """Take 的15% and put it before the operand: ``15% of 2480``."""
        if self.source.key(self.position) != "的" or self.position + 1 >= self.stop:
            return False

        end, number = _first(read_number(self.source, self.position + 1))

        if not number.written.endswith("%"):
            return False

        self.parts.insert(self.operand, f"{number.written} of ")
        self.position = end
        return True

    def _power(self) -> bool:
        """Take 的3次方."""
        if self.source.key(self.position) != "的" or self.position + 1 >= self.stop:
            return False

        end, number = _first(read_number(self.source, self.position + 1))
        return self.source.starts_with(end, ("次", "方")) and self._write(
            f" ^ {number.written}", end + 2 - self.position
        )

    def _postfix(self) -> bool:
        found = _longest(self.source, self.position, _POSTFIXES)
        return found is not None and self._write(*found)


def _longest(source: Source, position: int, table: dict[tuple[str, ...], str]) -> tuple[str, int] | None:
    return next(((sign, len(words)) for words, sign in table.items() if source.starts_with(position, words)), None)


def _first(numbers: list[tuple[int, Number]]) -> tuple[int, Number]:
    return numbers[0] if numbers else (-1, Number("", 0))
