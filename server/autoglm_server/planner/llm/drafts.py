"""From what a model wrote to drafts: the text of a step becomes a draft, or a refusal that says every fault of it."""

from __future__ import annotations

from autoglm.model import Json, JsonObject, StepDraft, StepRejected, Violation
from autoglm.wire import canonical_json, parse_json

NAME_CHARS_MAX = 200
"""How much of an id, title or tool's name is kept; the scheduler refuses what is longer than it may be."""
STEP_BYTES_MAX = 600_000
DEPENDENCIES_MAX = 1000


def read_step(text: str) -> StepDraft | StepRejected:
    """Read the text of one step.

    Only its form is judged here: whether the tool is there, the references and the arguments are right, the scheduler
    sees. What small models get wrong without harm is taken: a number as id, arguments as JSON text, one id where a list
    stands. Keys that are not ours are passed over.
    """
    if len(text.encode("utf-8", "replace")) > STEP_BYTES_MAX:
        fault = Violation("arguments", f"the step is longer than {STEP_BYTES_MAX} bytes: refer to outputs", "TOO_LARGE")
        return StepRejected(StepDraft(), (fault,))

    try:
        value = parse_json(text)
    except ValueError as error:
        return StepRejected(StepDraft(), (Violation("", f"a step that cannot be read: {error}", "MALFORMED"),))

    if not isinstance(value, dict):
        return StepRejected(StepDraft(), (Violation("", "a step must be an object", "MALFORMED"),))

    faults: list[Violation] = []
    draft = StepDraft(
        id=_name(value, "id", faults),
        title=_name(value, "title", faults),
        tool=_name(value, "tool", faults),
        arguments=_arguments(value, faults),
        depends_on=_depends_on(value, faults),
    )
    return StepRejected(draft, tuple(faults)) if faults else draft


def read_output(text: str) -> Json:
    """Read the structured answer.

    Raises:
        ValueError: it is no JSON; the message says where.
    """
    return parse_json(text)


def _name(value: JsonObject, key: str, faults: list[Violation]) -> str:
    said = value.get(key)

    match said:
        case None:
            return ""
        case str():
            return said[:NAME_CHARS_MAX]
        case int() if not isinstance(said, bool):
            return str(said)[:NAME_CHARS_MAX]
        case _:
            faults.append(_mistyped(key, "a string", said))
            return ""


def _arguments(value: JsonObject, faults: list[Violation]) -> JsonObject:
    said = value.get("arguments")

    if isinstance(said, str):
        try:
            said = parse_json(said) if said.strip() else {}
        except ValueError as error:
            faults.append(Violation("arguments", f"arguments are text that is no JSON: {error}", "MALFORMED"))
            return {}

    if said is None:
        return {}

    if not isinstance(said, dict):
        faults.append(_mistyped("arguments", "an object", said))
        return {}

    return said


def _depends_on(value: JsonObject, faults: list[Violation]) -> tuple[str, ...]:
    said = value.get("depends_on")
    listed = said if isinstance(said, list) else [] if said in (None, "") else [said]
    ids: list[str] = []

    for one in listed:
        if isinstance(one, str | int) and not isinstance(one, bool):
            ids.append(str(one)[:NAME_CHARS_MAX])
        else:
            faults.append(_mistyped("depends_on", "a list of ids of earlier steps", said))
            break

    if len(ids) > DEPENDENCIES_MAX:
        faults.append(Violation("depends_on", f"more than {DEPENDENCIES_MAX} ids", "TOO_MANY"))
        return ()

    return tuple(dict.fromkeys(ids))


def _mistyped(key: str, wanted: str, said: Json) -> Violation:
    text = canonical_json(said)
    shown = text if len(text) <= 80 else f"{text[:79]}…"
    return Violation(key, f"{key} is {shown}; write {wanted}", "MISTYPED")
