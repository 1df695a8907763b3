"""A plugin's planner, which is given a view of its own: whatever it writes into that changes nothing of the server's.

What plans have in common, such as the arguments of steps that are asked for again and again, is one value for all of them, and
what a step gave is what later steps are given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from typing import Any

from autoglm._shape import MESSAGES, Field, Kind, Label, shape_of
from autoglm.model import PlanOptions, Violation
from autoglm.planner import OptionsChecker, Planner, RoundItem, RoundView


class PluginPlanner:
    """Stands for a plugin's planner."""

    def __init__(self, planner: Planner) -> None:
        """Stand for ``planner``."""
        self._planner = planner

    @property
    def name(self) -> str:
        """What it is called."""
        return self._planner.name

    @property
    def revises(self) -> bool:
        """Whether it can find another way when a step failed."""
        return self._planner.revises

    def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        """Let it make one round."""
        own = replace(
            view,
            plan=apart(view.plan),
            tools=apart(tuple(view.tools)),
            rejected=apart(tuple(view.rejected)),
            context=apart(tuple(view.context)),
        )
        return self._planner.round(own)

    def check(self, options: PlanOptions) -> list[Violation]:
        """Let it find faults of the options, if it looks for any."""
        return list(self._planner.check(options)) if isinstance(self._planner, OptionsChecker) else []


def apart(value: Any) -> Any:
    """Give a value of the vocabulary, or one in it, that shares nothing with it that can be written into."""
    kind: Any = type(value)
    if kind is dict:
        return {key: apart(one) for key, one in value.items()}

    if kind is list:
        return [apart(one) for one in value]

    if kind is tuple:
        return tuple([apart(one) for one in value])

    names = _places(kind) if kind in MESSAGES else ()
    own = {name: apart(held) for name in names if (held := getattr(value, name)) is not None}
    return replace(value, **own) if own else value


@cache
def _places(cls: type) -> tuple[str, ...]:
    """Give the fields of a dataclass that hold something which can be written into, or may."""
    return tuple(field.name for field in shape_of(cls).fields if _written_into(field))


def _written_into(field: Field) -> bool:
    if field.label is Label.MAP or field.kind in (Kind.STRUCT, Kind.VALUE):
        return True

    return any(map(_written_into, field.members)) or (field.kind is Kind.MESSAGE and bool(_places(field.type)))
