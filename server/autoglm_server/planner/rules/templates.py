"""Fixed arguments that are JSON with slots in it, as ``["{a}", "{b}"]``: read as JSON first, filled in after.

So what a slot holds never counts as JSON: a quote in it ends no string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from autoglm.model import Json
from autoglm_server.planner.rules.grammar import Sequence, Slot, Words
from autoglm_server.planner.rules.schemas import MisfitError, escape

_MARK = re.compile("\ue000(\\d+)\ue001")
_WHOLE = re.compile("\ue002(\\d+)\ue001")


def is_json(template: Sequence) -> bool:
    """Whether a template looks like JSON."""
    return isinstance(template[0], Words) and template[0].text.startswith(("[", "{"))


def fill_json(template: Sequence, whole: Callable[[Slot], Json], inside: Callable[[Slot], str]) -> Json:
    """Give the JSON; ``whole`` gives a slot's value, ``inside`` its text within a JSON string.

    Raises:
        MisfitError: the template is no JSON.
    """
    text = ""
    slots: list[Slot] = []

    for node in template:
        if isinstance(node, Words):
            text += node.text
        elif isinstance(node, Slot):
            quoted = text.replace("\\\\", "").replace('\\"', "").count('"') % 2
            text += f"\ue000{len(slots)}\ue001" if quoted else f'"\ue002{len(slots)}\ue001"'
            slots.append(node)

    try:
        value = json.loads(text)
    except ValueError:
        raise MisfitError("is no JSON, although it begins like it") from None

    return _filled(value, slots, whole, inside)


def _filled(value: Json, slots: list[Slot], whole: Callable[[Slot], Json], inside: Callable[[Slot], str]) -> Json:
    match value:
        case str():
            alone = _WHOLE.fullmatch(value)
            return (
                whole(slots[int(alone[1])])
                if alone
                else _MARK.sub(lambda mark: inside(slots[int(mark[1])]), escape(value))
            )
        case list():
            return [_filled(item, slots, whole, inside) for item in value]
        case dict():
            return {name: _filled(item, slots, whole, inside) for name, item in value.items()}
        case _:
            return value
