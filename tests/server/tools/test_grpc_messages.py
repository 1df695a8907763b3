"""Messages as JSON: what is written fits its schema and reads back as the same message, whatever the message."""

from __future__ import annotations

import json
import math
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.wire import normal_json
from autoglm_server.service.reflection import contract as own_contract
from autoglm_server.tools.providers.messages import MessageError, from_json, schema_of, to_json
from autoglm_server.tools.providers.reflection import Reflected, join
from autoglm_server.tools.validation import Schema
from tests.server.tools.zoo import contract, message_class

POOL = contract().pool
EVERYTHING: Any = message_class("zoo.v1.Everything")
ANIMAL: Any = message_class("zoo.v1.Animal")


def schema(kind: Any, **options: bool) -> Schema:
    return Schema(json.dumps(schema_of(kind.DESCRIPTOR, {}, **options)), bytes_max=256 << 10)


INPUT, OUTPUT = schema(EVERYTHING), schema(EVERYTHING, output=True)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda one: one + 0.0)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BITS = {F.TYPE_INT32: 31, F.TYPE_SINT32: 31, F.TYPE_SFIXED32: 31, F.TYPE_INT64: 63, F.TYPE_SINT64: 63}
SPECIAL: dict[str, Any] = {
    "Timestamp": st.builds(dict, seconds=st.integers(-62135596800, 253402300799), nanos=st.integers(0, 999_999_999)),
    "Duration": st.builds(dict, seconds=st.integers(0, 315576000000), nanos=st.integers(0, 999_999_999)),
    "FieldMask": st.builds(
        dict, paths=st.lists(st.from_regex(r"[a-z]{1,4}(_[a-z]{1,3})?", fullmatch=True), max_size=2)
    ),
}


def scalars(field: Any, *, plain: bool) -> st.SearchStrategy[Any]:
    match field.type:
        case F.TYPE_BOOL:
            return st.booleans()
        case F.TYPE_STRING:
            return st.text(max_size=5)
        case F.TYPE_BYTES:
            return st.binary(max_size=5)
        case F.TYPE_ENUM:
            known = st.sampled_from([value.number for value in field.enum_type.values])
            return known if plain or len(field.enum_type.values) == 1 else known | st.integers(50, 60)
        case F.TYPE_FLOAT:
            return st.floats(width=32, allow_nan=False, allow_infinity=not plain).map(lambda one: one + 0.0)  # no -0
        case F.TYPE_DOUBLE:
            return st.floats(allow_nan=False, allow_infinity=not plain).map(lambda one: one + 0.0)
        case F.TYPE_UINT32 | F.TYPE_FIXED32:
            return st.integers(0, 2**32 - 1)
        case F.TYPE_UINT64 | F.TYPE_FIXED64:
            return st.integers(0, 2**64 - 1)
        case kind:
            bound = 2 ** BITS.get(kind, 63)
            return st.integers(-bound, bound - 1)


@st.composite
def messages(draw: st.DrawFn, kind: Any, depth: int = 0, *, plain: bool = True) -> Message:
    """Any message of a type; ``plain``: without what can be told but not given."""
    found: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)) or (field.message_type is not None and depth > 2):
            continue

        if field.message_type is not None and field.is_repeated and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            one = draw(scalars(key, plain=plain))
            if value.message_type is not None:
                inner = GetMessageClass(value.message_type)
                getattr(found, field.name)[one].CopyFrom(draw(messages(inner, depth + 1, plain=plain)))
            else:
                getattr(found, field.name)[one] = draw(scalars(value, plain=plain))
        elif field.message_type is not None:
            inner = GetMessageClass(field.message_type)
            own = special(inner)
            value = draw(messages(inner, depth + 1, plain=plain) if own is None else own)
            if field.is_repeated:
                getattr(found, field.name).append(value)
            else:
                getattr(found, field.name).CopyFrom(value)
        elif field.is_repeated:
            getattr(found, field.name).extend(draw(st.lists(scalars(field, plain=plain), max_size=3)))
        else:
            setattr(found, field.name, draw(scalars(field, plain=plain)))

    return found  # type: ignore[no-any-return]


def special(kind: Any) -> st.SearchStrategy[Any] | None:
    name = kind.DESCRIPTOR.name
    if kind.DESCRIPTOR.file.package != "google.protobuf":
        return None

    if name in SPECIAL:
        return SPECIAL[name].map(lambda fields: kind(**fields))  # type: ignore[no-any-return]

    if name in ("Struct", "Value", "ListValue"):
        values = {"Struct": st.dictionaries(st.text(max_size=4), JSON, max_size=3), "Value": JSON}
        return values.get(name, st.lists(JSON, max_size=3)).map(lambda value: from_json(value, kind(), POOL))

    if name == "Any":
        return messages(ANIMAL, 2).map(lambda animal: packed(kind(), animal))

    return None


def packed(any_: Any, message: Message) -> Any:
    any_.Pack(message)
    return any_


@given(messages(EVERYTHING))
@settings(max_examples=60, deadline=None)
def test_what_is_written_fits_its_schema_and_reads_back(message: Message) -> None:
    written = normal_json(to_json(message, POOL))

    assert OUTPUT.check(OUTPUT.widened(written), "output") == []
    assert INPUT.check(INPUT.widened(written), "arguments") == []
    assert from_json(INPUT.widened(written), EVERYTHING(), POOL) == message


@given(messages(EVERYTHING, plain=False))
@settings(max_examples=30, deadline=None)
def test_infinities_and_unknown_enum_numbers_are_told(message: Message) -> None:
    written = normal_json(to_json(message, POOL))

    assert OUTPUT.check(OUTPUT.widened(written), "output") == []


def test_the_control_a_wrong_schema_is_noticed() -> None:
    written = normal_json(to_json(EVERYTHING(i32=1), POOL))
    assert OUTPUT.check(written | {"i32": "1"}, "output")
    assert OUTPUT.check({key: one for key, one in written.items() if key != "i32"}, "output")


@given(JSON, st.sampled_from(sorted(field.json_name for field in EVERYTHING.DESCRIPTOR.fields)))
@settings(max_examples=60, deadline=None)
def test_no_json_does_more_than_be_refused(value: Any, name: str) -> None:
    try:
        message = from_json({name: value}, EVERYTHING(), POOL)
    except MessageError:
        return

    normal_json(to_json(message, POOL))


def test_what_is_left_unset_is_told_by_its_default() -> None:
    assert to_json(ANIMAL(name="Tom"), POOL) == {"name": "Tom", "kind": "KIND_UNSPECIFIED", "young": [], "friends": {}}


def test_a_float_is_told_as_it_was_written() -> None:
    written = to_json(EVERYTHING(single=0.1, number=0.1), POOL)
    assert (written["single"], written["number"]) == (0.1, 0.1)
    assert to_json(EVERYTHING(single=math.inf, number=-math.inf), POOL)["number"] == "-Infinity"


def test_the_schema_of_a_type_within_itself() -> None:
    comments = contract().comments
    found = schema_of(ANIMAL.DESCRIPTOR, comments)

    assert found["description"] == "An animal, and its young."
    assert found["properties"]["young"] == {
        "description": "Its young, of the same kind.",
        "type": "array",
        "items": {"$ref": "#"},
    }
    assert found["properties"]["kind"]["enum"] == ["KIND_UNSPECIFIED", "KIND_CAT", "KIND_BIRD"]
    assert found["allOf"] == [{"not": {"required": ["cage", "treeNumber"]}}]
    assert "one of cage, treeNumber" in found["properties"]["cage"]["description"]
    check = jsonschema_rs.validator_for(found)
    assert check.is_valid({"young": [{"name": "a", "young": []}], "friends": {"b": {"cage": "1"}}})
    assert not check.is_valid({"young": [{"nme": "a"}]})
    assert not check.is_valid({"friends": {"b": {"cage": "1", "treeNumber": 2}}})

    many = schema_of(ANIMAL.DESCRIPTOR, {}, output=True, many=True)
    assert many["items"] == {"$ref": "#/$defs/zoo.v1.Animal"}
    assert jsonschema_rs.validator_for(many).is_valid([normal_json(to_json(ANIMAL(young=[ANIMAL()]), POOL))])


def test_types_that_contain_each_other_are_told_once() -> None:
    found = schema_of(EVERYTHING.DESCRIPTOR, {})
    assert found["properties"]["inner"] == {"$ref": "#/$defs/zoo.v1.Everything.Inner"}
    assert "zoo.v1.Everything.Deep" not in found["$defs"]


def test_a_message_nested_too_deep_is_refused() -> None:
    animal: Any = ANIMAL()
    for _ in range(40):
        animal = ANIMAL(young=[animal])

    with pytest.raises(MessageError, match="deeper than 32"):
        to_json(animal, POOL)


def test_the_own_contract_can_be_told() -> None:
    served = own_contract()
    found = join(
        Reflected(tuple(served.services), {file.name: file.SerializeToString() for file in served._files.values()})
    )
    kinds = {
        one
        for service in found.services
        for method in service.methods
        for one in (method.input_type, method.output_type)
    }
    assert len(kinds) > 20
    for kind in kinds:
        for output in (False, True):
            text = json.dumps(schema_of(kind, found.comments, output=output))
            Schema(text, bytes_max=256 << 10)
