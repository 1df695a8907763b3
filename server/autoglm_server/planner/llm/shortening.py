"""Long values for a prompt: what is shown of them, and how the rest can be read."""

from __future__ import annotations

from autoglm.model import Json, JsonObject
from autoglm.wire import canonical_json

SLICE_TOOL = "text.slice"
"""The tool that reads a part of a long output, given by reference."""


def shortened(value: Json, chars: int, step_id: str = "") -> Json:
    """Give the value itself if its JSON has up to ``chars`` characters, else its beginning and end, marked as such.

    With ``step_id``, the mark says how a step can read the rest of that step's output.
    """
    text = value if isinstance(value, str) else canonical_json(value)

    if len(text) <= chars:
        return value

    head, tail = chars * 3 // 4, chars // 4
    mark: JsonObject = {
        "SHORTENED": f"{len(text) - head - tail} of {len(text)} characters are left out between beginning and end",
        "beginning": text[:head],
        "end": text[len(text) - tail :] if tail else "",
    }

    if isinstance(value, list):
        mark["items"] = len(value)
    elif isinstance(value, dict):
        mark["keys"] = list(value)[:30]

    if step_id:
        mark["to read more"] = (
            f'write a step with tool {SLICE_TOOL} and arguments {{"value": "${{{step_id}}}", "start": {head}, '
            f'"end": {head + chars}}}, or refer to the part you need, such as ${{{step_id}.path}}'
        )

    return mark
