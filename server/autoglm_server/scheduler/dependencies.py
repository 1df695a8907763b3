"""What a step may depend on: a step that is there, and of its output what the tool says it gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from autoglm._dataclasses import dataclass
from autoglm.model import Violation

if TYPE_CHECKING:
    from autoglm.fold import StepFold
    from autoglm_server.tools.catalog import Catalog

_NEAR_MAX = 1_000
"""Among how many steps the nearest is looked for."""
HINTS_MAX = 16
"""How often one request is told what it may have meant: looking for that can take longer than all checks."""


class Known(Protocol):
    """The steps that a draft may depend on."""

    hints: int
    """How often the request may still be told what it may have meant."""

    def ids(self) -> Iterable[str]:
        """Give their ids."""
        ...

    def tool(self, step_id: str) -> str | None:
        """Give the name of a step's tool, or None if there is no such step."""
        ...


def may_hint(known: Known) -> bool:
    """Use up one of the hints; False: there is none."""
    known.hints -= 1
    return known.hints >= 0


@dataclass(slots=True)
class Given:
    """The caller's own steps, all of them."""

    tools: Mapping[str, str]
    hints: int = HINTS_MAX

    def ids(self) -> Iterable[str]:
        return self.tools

    def tool(self, step_id: str) -> str | None:
        return self.tools.get(step_id)


@dataclass(slots=True)
class Before:
    """The steps that a plan has by now."""

    steps: Mapping[str, StepFold]
    hints: int = HINTS_MAX

    def ids(self) -> Iterable[str]:
        return self.steps

    def tool(self, step_id: str) -> str | None:
        step = self.steps.get(step_id)
        return step.added.tool if step is not None else None


def unmet(own: str, place: str, step_id: str, member: str, catalog: Catalog, known: Known) -> Violation | None:
    """Say what is wrong with a dependency, if anything is; ``member`` is what a reference takes of the output."""
    if step_id == own:
        return Violation(place, f"step {own!r} depends on itself; leave that out", "CYCLE")

    name = known.tool(step_id)
    if name is None:
        near = get_close_matches(step_id[:80], list(islice(known.ids(), _NEAR_MAX)), 1) if may_hint(known) else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return Violation(place, f"there is no step {step_id[:80]!r} to depend on{hint}", "UNKNOWN_STEP")

    tool = catalog.get(name) if member else None
    members = _members(tool.output_schema) if tool is not None else None
    if members is None or member in members:
        return None

    near = get_close_matches(member, members, 1) if may_hint(known) else []
    hint = f"did you mean {near[0]}?" if near else f"it gives {', '.join(members)}"
    return Violation(place, f"the output of {name} has no {member!r}; {hint}", "UNKNOWN_FIELD")


@lru_cache(maxsize=4096)
def _members(schema: str) -> tuple[str, ...] | None:
    """Give the members an output can have, or None if its schema leaves that open."""
    try:
        read = json.loads(schema) if schema else {}
    except ValueError:
        return None

    closed = isinstance(read, dict) and read.get("type") == "object" and read.get("additionalProperties") is False
    return tuple(read.get("properties", ())) if closed and "patternProperties" not in read else None
