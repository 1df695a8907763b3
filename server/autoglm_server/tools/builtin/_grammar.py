"""The grammar of arithmetic: precedence climbing over tokens, evaluated as it is read.

From weak to strong: ``+ -``; ``* / // mod of off`` and multiplication without a sign; unary ``+ -``; ``^`` (to the right);
what follows its operand, as ``! % ° squared``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final, TypeVar

from autoglm._dataclasses import dataclass
from autoglm.tool import ToolError
from autoglm_server.tools.builtin import _numbers
from autoglm_server.tools.builtin._numbers import MANY, ONE, TWO, Number
from autoglm_server.tools.builtin._tokens import CONSTANTS, Token, syntax, tokens

DEPTH_MAX: Final = 64
"""How deep parentheses, signs and powers may be nested."""

_SUM, _PRODUCT = 10, 20
_INFIX: Final = MappingProxyType(
    {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT, "mod": _PRODUCT}
    | {"of": _PRODUCT, "off": _PRODUCT},
)
_APPLY: Final[MappingProxyType[str, Callable[[Number, Number], Number]]] = MappingProxyType(
    {
        "+": _numbers.add,
        "-": _numbers.subtract,
        "*": _numbers.multiply,
        "/": _numbers.divide,
        "//": _numbers.floor_divide,
        "%": _numbers.modulo,
        "mod": _numbers.modulo,
    },
)
_POSTFIX_FUNCTIONS: Final = frozenset({"factorial", "sqrt", "cbrt", "abs", "square", "cube"})
_DIGITS: Final = re.compile(r"[0-9.]+(?:[eE][-+]?[0-9]+)?")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Value:
    """A part of an expression: what it is, how it is written, and whether it may be written there without parentheses.

    ``percent`` marks one that ends in a percent sign, ``share`` one that "of" may follow: a percentage, a fraction, a
    multiple.
    """

    number: Number
    text: str
    atomic: bool = False
    percent: bool = False
    share: bool = False

    @property
    def closed(self) -> str:
        """The text, in parentheses if it needs them."""
        return self.text if self.atomic else f"({self.text})"


def evaluate(expression: str) -> Value:
    """Evaluate an expression.

    Raises:
        ToolError: SYNTAX, DIVISION_BY_ZERO, TOO_LARGE or DOMAIN; the message says where.
    """
    return _Parser(tokens(expression)).whole()


class _Parser:
    """Reads one list of tokens, from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Value:
        if self._peek().kind == "end":
            raise ToolError("the expression is empty; write one, such as 15% of 2480", reason="SYNTAX")

        value = self._infix(_SUM)
        token = self._peek()
        if token.text == ",":
            raise syntax(
                "a comma stands outside a function; write average(1, 2), or 1234 without a comma", token.position
            )

        if token.kind != "end":
            raise self._unexpected(token, "an operator")

        return value

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _take(self) -> Token:
        token = self._peek()
        self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        """Take the next token if it is this sign."""
        found = self._peek().kind == "sign" and self._peek().text == text
        self._next += found
        return found

    def _unexpected(self, token: Token, wanted: str) -> ToolError:
        found = "the expression ends" if token.kind == "end" else f"{token.text[:40]!r} stands"
        return syntax(f"{found} where {wanted} should be", token.position)

    def _starts_operand(self, ahead: int) -> bool:
        token = self._peek(ahead)
        return token.kind in ("number", "function", "constant") or (
            token.kind == "sign" and token.text in ("(", "half", "百分之")
        )

    def _infix(self, weakest: int) -> Value:
        left = self._unary()
        while True:
            token = self._peek()
            implied = token.kind in ("function", "constant") or (token.kind == "sign" and token.text == "(")
            strength = _PRODUCT if implied else _INFIX.get(token.text, 0) if token.kind == "sign" else 0
            if strength < weakest or not strength:
                return left

            sign = "*" if implied else self._take().text
            right = self._infix(_PRODUCT) if strength == _SUM else self._unary()
            left = self._combined(left, sign, right, token.position)

    def _combined(self, left: Value, sign: str, right: Value, position: int) -> Value:
        if sign in ("of", "off"):
            return self._share(left, sign, right, position)

        text = f"{left.text} {'mod' if sign == '%' else sign} {right.text}"
        if sign in "+-" and right.percent and not left.percent:
            part = self._at(position, _numbers.multiply, left.number, right.number)
            return Value(self._at(position, _APPLY[sign], left.number, part), text)

        return Value(self._at(position, _APPLY[sign], left.number, right.number), text)

    def _share(self, left: Value, sign: str, right: Value, position: int) -> Value:
        """Take a part of a whole: 15% of 80, 80的15%, 20% off 80."""
        if right.share and not left.share and sign == "of":
            left, right = right, left

        if not left.share and not isinstance(left.number, Fraction):
            raise syntax(f"{left.text[:40]!r} is no percentage or fraction, and cannot stand before {sign!r}", position)

        rate = left.number if sign == "of" else self._at(position, _numbers.subtract, 1, left.number)
        shown = sign if left.percent else "*" if sign == "of" else None
        text = f"{left.text} {shown} {right.text}" if shown else f"(1 - {left.closed}) * {right.text}"
        return Value(self._at(position, _numbers.multiply, rate, right.number), text)

    def _unary(self) -> Value:
        token = self._peek()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ToolError(
                f"the expression is nested more than {DEPTH_MAX} deep at character {token.position + 1}; calculate it in parts",
                reason="TOO_LARGE",
                metadata={"position": str(token.position + 1)},
            )

        if self._takes("-"):
            value = self._unary()
            value = replace(value, number=-value.number, text=f"-{value.text}", atomic=False)
        elif self._takes("+"):
            value = self._unary()
        else:
            value = self._power()

        self._depth -= 1
        return value

    def _power(self) -> Value:
        base = self._followed(self._operand())
        position = self._peek().position
        if not self._takes("^"):
            return base

        return self._raised(base, self._unary(), position)

    def _raised(self, base: Value, exponent: Value, position: int) -> Value:
        number = self._at(position, _numbers.power, base.number, exponent.number)
        return Value(number, f"{base.closed} ^ {exponent.text}")

    def _followed(self, value: Value) -> Value:
        """Read what follows an operand and applies to it."""
        while True:
            after = self._postfix(value)
            if after is None:
                return value

            value = after

    def _postfix(self, value: Value) -> Value | None:
        token = self._peek()
        skipped = int(token.kind == "sign" and token.text == "of")
        applied = self._peek(skipped)
        if applied.kind == "function" and applied.text in _POSTFIX_FUNCTIONS and not self._called(skipped + 1):
            self._next += skipped + 1
            return self._called_with(applied, [value])

        if applied.kind == "number" and self._is_sign(skipped + 1, "次方") and skipped:
            self._next += 3
            return self._raised(value, Value(applied.value, str(applied.value)), token.position)

        if applied.kind != "sign":
            return None

        if applied.text in ("squared", "cubed"):
            self._next += skipped + 1
            exponent = 2 if applied.text == "squared" else 3
            return self._raised(value, Value(exponent, str(exponent)), token.position)

        return None if skipped else self._suffix(value, token)

    def _suffix(self, value: Value, token: Token) -> Value | None:
        if token.text == "percent" or (token.text == "%" and not self._starts_operand(1)):
            self._take()
            number = self._at(token.position, _numbers.divide, value.number, 100)
            return Value(number, f"{value.closed}%", atomic=True, percent=True, share=True)

        if token.text == "!":
            self._take()
            return Value(self._at(token.position, _numbers.factorial, value.number), f"{value.closed}!", atomic=True)

        if token.text == "°":
            self._take()
            number = self._at(token.position, _numbers.multiply, value.number, math.pi / 180)
            return Value(number, f"{value.closed}°", atomic=True)

        if token.text == "倍":
            self._take()
            return replace(value, share=True)

        if token.text == "分之":
            self._take()
            over = self._operand()
            number = self._at(token.position, _numbers.divide, over.number, value.number)
            return Value(number, f"({over.closed} / {value.closed})", atomic=True, share=True)

        return None

    def _is_sign(self, ahead: int, text: str) -> bool:
        token = self._peek(ahead)
        return token.kind == "sign" and token.text == text

    def _called(self, ahead: int) -> bool:
        """Whether what stands there is a function's argument, rather than what comes after its operand."""
        return self._starts_operand(ahead) or (self._is_sign(ahead, "of") and self._starts_operand(ahead + 1))

    def _operand(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return Value(token.value, _literal(token), atomic=True)

        if token.kind == "constant":
            return Value(CONSTANTS[token.text], token.text, atomic=True)

        if token.kind == "function":
            return self._function(token)

        if token.kind == "sign" and token.text == "(":
            value = self._infix(_SUM)
            self._close()
            return Value(value.number, f"({value.text})", atomic=True)

        if token.kind == "sign" and token.text == "half":
            return Value(Fraction(1, 2), "(1 / 2)", atomic=True, share=True)

        if token.kind == "sign" and token.text == "百分之":
            part = self._operand()
            number = self._at(token.position, _numbers.divide, part.number, 100)
            return Value(number, f"{part.closed}%", atomic=True, percent=True, share=True)

        raise self._unexpected(token, "a number")

    def _function(self, token: Token) -> Value:
        self._takes("of")
        if not self._takes("("):
            return self._called_with(token, [self._unary()])

        arguments = [self._infix(_SUM)]
        while self._takes(","):
            arguments.append(self._infix(_SUM))

        self._close()
        return self._called_with(token, arguments)

    def _called_with(self, token: Token, arguments: list[Value]) -> Value:
        text = f"{token.text}({', '.join(argument.text for argument in arguments)})"
        numbers = [argument.number for argument in arguments]
        if token.text in MANY:
            return Value(self._at(token.position, MANY[token.text], numbers), text, atomic=True)

        most = 2 if token.text in TWO else 1
        if len(numbers) > most:
            raise syntax(f"{token.text} takes {most} number{'s' * (most > 1)}, not {len(numbers)}", token.position)

        function: Callable[..., Number] = TWO[token.text] if token.text in TWO else ONE[token.text]
        return Value(self._at(token.position, function, *numbers), text, atomic=True)

    def _close(self) -> None:
        if not self._takes(")"):
            raise self._unexpected(self._peek(), "')'")

    def _at(self, position: int, function: Callable[..., _T], *arguments: object) -> _T:
        """Call ``function``; an error of it tells where in the expression it arose."""
        try:
            return function(*arguments)
        except ToolError as error:
            raise ToolError(
                f"{error.message} (at character {position + 1})",
                reason=error.reason,
                metadata={"position": str(position + 1)},
            ) from None


def _literal(token: Token) -> str:
    """Write a number as people write it, in digits."""
    digits = token.text.replace(",", "")
    if _DIGITS.fullmatch(digits):
        return digits

    return str(token.value) if isinstance(token.value, int) else repr(float(token.value))
