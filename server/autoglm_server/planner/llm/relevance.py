"""Narrows a catalog that is too large for a prompt, by a simple relevance that can be explained.

Words of the request are looked for in what each tool says of itself. A word counts by how rare it is among the tools
(a word that every tool has tells nothing), and by where it stands: three times in the name, twice in title, tags and the
names of parameters, once in the description. Two words are the same if they begin alike (`convert`, `conversion`: their
first five letters); text without spaces between words is read in pairs of characters. Tools already used in the plan
are always kept. What is left out is counted and told, never dropped in silence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from autoglm._dataclasses import dataclass
from autoglm.model import Tool
from autoglm.wire import parse_json

STEM = 5
_WORD = re.compile(r"[a-z]+|[0-9]+|[\u3040-\u30ff\u3400-\u9fff]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_COMMON = frozenset(
    re.findall(
        "[a-z]+",
        "a an and are as at be by for from get how i in is it me my of on or please that the this to what with",
    )
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The tools a prompt shows, in the catalog's order, and how many it does not."""

    tools: tuple[Tool, ...]
    left_out: int


def choose(
    tools: Sequence[Tool], request: str, *, room: int, size: Callable[[Tool], int], keep: Collection[str] = ()
) -> Choice:
    """Choose the tools to show: all if they fit ``room``, else the most relevant to ``request`` that do.

    Args:
        tools: what the plan may use.
        request: what to be relevant to.
        room: how large the tools may be in all, in what ``size`` measures.
        size: how large one tool is.
        keep: names that are shown first, whatever they are.
    """
    sizes = {tool.name: size(tool) for tool in tools}

    if sum(sizes.values()) <= room:
        return Choice(tuple(tools), 0)

    scores = relevance(tools, request)
    ranked = sorted(tools, key=lambda tool: (tool.name not in keep, -scores[tool.name], tool.name))
    chosen: set[str] = set()

    for tool in ranked:
        if sizes[tool.name] <= room:
            chosen.add(tool.name)
            room -= sizes[tool.name]

    return Choice(tuple(tool for tool in tools if tool.name in chosen), len(tools) - len(chosen))


def relevance(tools: Sequence[Tool], request: str) -> dict[str, float]:
    """Give each tool's relevance to the request, from 0."""
    wanted = set(stems(request))
    weights = {tool.name: _weights(tool) for tool in tools}
    spread = Counter(stem for weight in weights.values() for stem in weight)
    rare = {stem: math.log(1 + len(tools) / count) for stem, count in spread.items()}
    return {
        name: sum(count * rare[stem] for stem, count in weight.items() if stem in wanted)
        for name, weight in weights.items()
    }


def stems(text: str) -> Iterator[str]:
    """Give what the words of a text are compared by."""
    for word in _WORD.findall(_CAMEL.sub(" ", text).lower()):
        if word[0] > "\u3000":
            yield from (word[index : index + 2] for index in range(max(1, len(word) - 1)))
        elif word not in _COMMON:
            yield word[:STEM]


def _weights(tool: Tool) -> Counter[str]:
    """Give how much each stem counts in a tool; a stem said often counts once in each place."""
    found: Counter[str] = Counter()

    for text, weight in (
        (tool.name, 3),
        (f"{tool.title} {' '.join(tool.tags)} {' '.join(_parameters(tool))}", 2),
        (tool.description, 1),
    ):
        for stem in set(stems(text)):
            found[stem] += weight

    return found


def _parameters(tool: Tool) -> list[str]:
    try:
        schema = parse_json(tool.input_schema or "{}")
    except ValueError:
        return []

    properties = schema.get("properties") if isinstance(schema, dict) else None
    return list(properties) if isinstance(properties, dict) else []
