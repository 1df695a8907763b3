"""How near a plan is to an expected one: the metrics of TaskBench, over tools, edges and arguments. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Protocol

from autoglm._dataclasses import dataclass
from autoglm.model import Json, JsonObject
from autoglm.wire import canonical_json

_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z0-9_][A-Za-z0-9_-]{0,63})((?:[.\[][^}]*)?)\}")


class Planned(Protocol):
    """What a step and a draft have in common."""

    @property
    def id(self) -> str: ...

    @property
    def tool(self) -> str: ...

    @property
    def arguments(self) -> JsonObject | None: ...

    @property
    def depends_on(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Score:
    """F1 from 0 to 1 of a plan against the expected one; None where neither has anything to compare.

    ``nodes``: the tools, as often as each is used. ``edges``: which tool waits for which. ``names``: the arguments each tool
    is given. ``values``: these with their values; a reference stands for the tool it refers to, whatever the step is called.
    """

    nodes: float | None
    edges: float | None
    names: float | None
    values: float | None


def score(expected: Sequence[Planned], planned: Sequence[Planned]) -> Score:
    """Compare a plan with the expected one."""
    return Score(
        f1(_nodes(expected), _nodes(planned)),
        f1(_edges(expected), _edges(planned)),
        f1(_names(expected), _names(planned)),
        f1(_values(expected), _values(planned)),
    )


def f1(expected: Iterable[Hashable], given: Iterable[Hashable]) -> float | None:
    """Give the harmonic mean of precision and recall, of things that may occur several times."""
    wanted, found = Counter(expected), Counter(given)
    everything = wanted.total() + found.total()
    return 2 * (wanted & found).total() / everything if everything else None


def mean(values: Iterable[float | None]) -> float | None:
    """Give the mean of what there is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _nodes(steps: Sequence[Planned]) -> list[str]:
    return [step.tool for step in steps]


def _edges(steps: Sequence[Planned]) -> list[tuple[str, str]]:
    tools = _tools(steps)
    return [
        (tools[source], step.tool)
        for step in steps
        for source in dict.fromkeys((*step.depends_on, *_referred(step.arguments)))
        if source in tools
    ]


def _names(steps: Sequence[Planned]) -> list[tuple[str, str]]:
    return [(step.tool, name) for step in steps for name in step.arguments or {}]


def _values(steps: Sequence[Planned]) -> list[tuple[str, str, str]]:
    tools = _tools(steps)
    return [
        (step.tool, name, canonical_json(_normal(value, tools)))
        for step in steps
        for name, value in (step.arguments or {}).items()
    ]


def _tools(steps: Sequence[Planned]) -> dict[str, str]:
    return {step.id: step.tool for step in steps}


def _referred(value: Json) -> list[str]:
    match value:
        case str():
            return [match[1] for match in _REFERENCE.finditer(value)]
        case dict():
            return [one for inner in value.values() for one in _referred(inner)]
        case list():
            return [one for inner in value for one in _referred(inner)]
        case _:
            return []


def _normal(value: Json, tools: Mapping[str, str]) -> Json:
    """Write references by the tool they refer to, and texts without what does not matter: case and white space around."""
    match value:
        case str():
            written = _REFERENCE.sub(lambda match: f"${{<{tools.get(match[1], match[1])}>{match[2]}}}", value)
            return " ".join(written.split()).casefold()
        case dict():
            return {key: _normal(inner, tools) for key, inner in value.items()}
        case list():
            return [_normal(inner, tools) for inner in value]
        case _:
            return value
