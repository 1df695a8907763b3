"""Protobuf messages as JSON: the schema of a message type, and the way there and back.

It is protobuf's JSON mapping, with two differences that make one step's output another's argument: a 64-bit integer is an
integer, as everywhere in AutoGLM, not a string; and a field that has no presence is always there, also with its default.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from autoglm.model import Json, JsonObject
from autoglm.wire import DEPTH_MAX

TYPES_MAX: Final = 500
"""How many message types one schema may have."""
_INLINE_MAX: Final = 4
"""How many types deep a schema is written in one piece; what is below is under ``$defs``, as JSON's depth is bounded."""
_PAIRS_MAX: Final = 8
_UNUSUAL: Final = ("NaN", "Infinity", "-Infinity")

_F = FieldDescriptor
_Field: TypeAlias = Any
"""A FieldDescriptor; which class that is depends on how protobuf was built."""
_RANGES: Final[tuple[tuple[tuple[int, ...], JsonObject], ...]] = (
    ((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), {"minimum": -(2**31), "maximum": 2**31 - 1}),
    ((_F.TYPE_UINT32, _F.TYPE_FIXED32), {"minimum": 0, "maximum": 2**32 - 1}),
    ((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), {}),  # its bounds are more than a number in JSON can say
    ((_F.TYPE_UINT64, _F.TYPE_FIXED64), {"minimum": 0}),
)
_INTEGERS: Final[Mapping[int, JsonObject]] = {
    kind: {"type": "integer"} | bounds for kinds, bounds in _RANGES for kind in kinds
}
_FLOATS: Final = (_F.TYPE_DOUBLE, _F.TYPE_FLOAT)
_MESSAGES: Final = (_F.TYPE_MESSAGE, _F.TYPE_GROUP)
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_SPECIAL: Final[Mapping[str, JsonObject]] = {
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
_NULL: Final = "google.protobuf.NullValue"
_OBJECTS: Final = frozenset({"google.protobuf.Any", "google.protobuf.Struct"})


class MessageError(ValueError):
    """A type cannot be told in JSON Schema, or a message not in JSON; the message is a sentence about it."""


def is_object(message: Descriptor) -> bool:
    """Whether the JSON of a message is always an object; a few of google's own are something else."""
    name = message.full_name
    return name in _OBJECTS or (name not in _SPECIAL and name not in _WRAPPERS)


def schema_of(
    message: Descriptor, comments: Mapping[str, str], *, output: bool = False, many: bool = False
) -> JsonObject:
    """Give the JSON Schema of a message type; ``output``: of what :func:`to_json` writes; ``many``: of a list of them.

    Raises:
        MessageError: it consists of too many types.
    """
    return _Writer(message, comments, output=output).whole(many=many)


class _Writer:
    """Writes the schema of one type. A type that is used more than once, or within itself, is under ``$defs``."""

    def __init__(self, root: Descriptor, comments: Mapping[str, str], *, output: bool) -> None:
        self._root = root
        self._comments = comments
        self._output = output
        self._uses = _uses(root)
        self._apart: dict[str, Descriptor] = {}
        self._root_ref = "#"

    def whole(self, *, many: bool) -> JsonObject:
        if not many:
            schema = self._message(self._root, 0)
        else:
            self._root_ref = f"#/$defs/{self._root.full_name}"
            again = self._uses[self._root.full_name] > 0
            schema = {"type": "array", "items": self._use(self._root, 0) if again else self._message(self._root, 0)}

        definitions: JsonObject = {}
        while left := self._apart.keys() - definitions.keys():
            for name in sorted(left):
                definitions[name] = self._message(self._apart[name], 0)

        return schema | {"$defs": definitions} if definitions else schema

    def _message(self, message: Descriptor, depth: int) -> JsonObject:
        name = message.full_name
        if name in _SPECIAL:
            return dict(_SPECIAL[name])

        if name in _WRAPPERS:
            inner = self._scalar(message.fields_by_name["value"])
            if "anyOf" in inner:
                return {"anyOf": [*inner["anyOf"], {"type": "null"}]}

            return inner | {"type": [inner["type"], "null"]}

        schema: JsonObject = {
            "type": "object",
            "properties": {field.json_name: self._field(field, depth) for field in message.fields},
        }
        if comment := self._comments.get(name):
            schema["description"] = comment

        if required := [field.json_name for field in message.fields if self._is_required(field)]:
            schema["required"] = required

        if not self._output:
            schema["additionalProperties"] = False
            if pairs := [pair for oneof in message.oneofs for pair in _pairs(oneof)]:
                schema["allOf"] = pairs

        return schema

    def _is_required(self, field: _Field) -> bool:
        return field.is_required or (self._output and (field.is_repeated or not field.has_presence))

    def _field(self, field: _Field, depth: int) -> JsonObject:
        if (entry := _entry(field)) is not None:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            schema: JsonObject = {"type": "object", "additionalProperties": self._one(value, depth)}
            if key.type == _F.TYPE_BOOL:
                schema["propertyNames"] = {"enum": ["true", "false"]}
            elif key.type in _INTEGERS:
                schema["propertyNames"] = {"pattern": "^-?[0-9]{1,20}$"}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._one(field, depth)}
        else:
            schema = self._one(field, depth)

        notes = [self._comments.get(field.full_name, "")]
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            notes.append(f"At most one of {', '.join(other.json_name for other in oneof.fields)}.")

        if field.type == _F.TYPE_BYTES:
            notes.append("Base64.")

        if told := "\n".join(filter(None, notes)):
            return {"description": told} | schema if "$ref" not in schema else schema | {"description": told}

        return schema

    def _one(self, field: _Field, depth: int) -> JsonObject:
        return self._use(field.message_type, depth + 1) if field.type in _MESSAGES else self._scalar(field)

    def _use(self, message: Descriptor, depth: int) -> JsonObject:
        """Write a type where it is used, or refer to it."""
        name = message.full_name
        if name in _SPECIAL or name in _WRAPPERS:
            return self._message(message, depth)

        if name == self._root.full_name and self._root_ref == "#":
            return {"$ref": "#"}

        if self._uses[name] > 1 or depth > _INLINE_MAX or name == self._root.full_name:
            self._apart[name] = message
            return {"$ref": f"#/$defs/{name}"}

        return self._message(message, depth)

    def _scalar(self, field: _Field) -> JsonObject:
        match field.type:
            case _F.TYPE_BOOL:
                return {"type": "boolean"}

            case _F.TYPE_STRING:
                return {"type": "string"}

            case _F.TYPE_BYTES:
                return {"type": "string", "contentEncoding": "base64"}

            case _F.TYPE_ENUM:
                return self._enum(field.enum_type)

            case kind if kind in _FLOATS:
                number: JsonObject = {"type": "number"}
                return {"anyOf": [number, {"enum": list(_UNUSUAL)}]} if self._output else number

            case kind:
                return dict(_INTEGERS[kind])

    def _enum(self, enum: Any) -> JsonObject:
        if enum.full_name == _NULL:
            return {"type": "null"}

        names: JsonObject = {"type": "string", "enum": [value.name for value in enum.values]}
        if self._output:  # a newer server may send a number that has no name here
            names = {"anyOf": [names, {"type": "integer"}]}

        comment = self._comments.get(enum.full_name)
        return {"description": comment} | names if comment else names


def _pairs(oneof: OneofDescriptor) -> list[JsonObject]:
    """Say that no two fields of a oneof stand together; of a large one only parsing says it."""
    names = [field.json_name for field in oneof.fields]
    if len(names) > _PAIRS_MAX:
        return []

    return [{"not": {"required": [one, other]}} for number, one in enumerate(names) for other in names[number + 1 :]]


def _uses(root: Descriptor) -> Counter[str]:
    """Count how often each message type is used by a field, in all that can be reached."""
    uses: Counter[str] = Counter()
    seen = {root.full_name}
    waiting = [root]
    while waiting:
        for field in waiting.pop().fields:
            entry = _entry(field)
            used = entry.fields_by_name["value"].message_type if entry else field.message_type
            if used is None or used.full_name in _SPECIAL or used.full_name in _WRAPPERS:
                continue

            uses[used.full_name] += 1
            if used.full_name not in seen:
                seen.add(used.full_name)
                waiting.append(used)

        if len(seen) > TYPES_MAX:
            raise MessageError(f"{root.full_name} consists of more than {TYPES_MAX} types")

    return uses


def _entry(field: _Field) -> Descriptor | None:
    """Give the type of a map's entries; None for what is no map."""
    kind = field.message_type
    return kind if kind is not None and field.is_repeated and kind.GetOptions().map_entry else None


# --- there and back


def from_json(value: Json, message: Message, pool: DescriptorPool) -> Message:
    """Fill a message from JSON, and give it.

    Raises:
        MessageError: the JSON does not fit.
    """
    try:
        return json_format.ParseDict(value, message, descriptor_pool=pool, max_recursion_depth=2 * DEPTH_MAX)
    except (json_format.Error, ValueError, TypeError, KeyError, OverflowError) as error:
        raise MessageError(str(error).split("\n", maxsplit=1)[0]) from None


def to_json(message: Message, pool: DescriptorPool) -> Json:
    """Give a message as JSON.

    Raises:
        MessageError: it is nested too deep, or is one of google's own with a value that means nothing.
    """
    return _value(message, pool, DEPTH_MAX)


def _value(message: Message, pool: DescriptorPool, room: int) -> Json:
    kind = message.DESCRIPTOR
    if room <= 0:
        raise MessageError(f"it is nested deeper than {DEPTH_MAX} levels")

    if kind.full_name in _WRAPPERS:
        return _plain(kind.fields_by_name["value"], getattr(message, "value", None), pool, room)

    if kind.full_name in _SPECIAL:
        try:
            return json_format.MessageToDict(message, descriptor_pool=pool)
        except (json_format.Error, ValueError, TypeError, KeyError, OverflowError) as error:
            raise MessageError(str(error).split("\n", maxsplit=1)[0]) from None

    found: JsonObject = {}
    for field in kind.fields:
        value = getattr(message, field.name)
        if (entry := _entry(field)) is not None:
            of = entry.fields_by_name["value"]
            found[field.json_name] = {_key(key): _plain(of, value[key], pool, room - 1) for key in value}
        elif field.is_repeated:
            found[field.json_name] = [_plain(field, one, pool, room - 1) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.json_name] = _plain(field, value, pool, room)

    return found


def _plain(field: _Field, value: Any, pool: DescriptorPool, room: int) -> Json:
    match field.type:
        case kind if kind in _MESSAGES:
            return _value(value, pool, room - 1)

        case _F.TYPE_ENUM:
            if field.enum_type.full_name == _NULL:
                return None

            known = field.enum_type.values_by_number.get(value)
            return known.name if known else value

        case _F.TYPE_BYTES:
            return base64.b64encode(value).decode()

        case kind if kind in _FLOATS:
            return _number(value, single=kind == _F.TYPE_FLOAT)

        case _:
            return value


def _number(value: float, *, single: bool) -> Json:
    if not math.isfinite(value):
        return _UNUSUAL[0] if math.isnan(value) else _UNUSUAL[1 + (value < 0)]

    if single:  # the shortest that is the same in 32 bits: 0.1, not 0.10000000149011612
        for digits in range(6, 10):
            short = float(f"{value:.{digits}g}")
            if abs(short) < 3.4e38 and struct.unpack("<f", struct.pack("<f", short))[0] == value:
                return short

    return value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
