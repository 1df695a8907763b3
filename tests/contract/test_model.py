"""The dataclasses of the vocabulary and the messages of the contract say the same, field by field."""

from __future__ import annotations

import enum
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from autoglm import errors, model, wire
from autoglm._shape import Kind, shape_of
from autoglm.v1 import event_pb2, failure_pb2, plan_pb2, plan_service_pb2, tool_pb2, tool_service_pb2

SOURCES = [failure_pb2, plan_pb2, event_pb2, tool_pb2, tool_service_pb2, plan_service_pb2]
CLASSES = [cls for cls in vars(model).values() if isinstance(cls, type) and is_dataclass(cls)]
ENUMS = [cls for cls in vars(model).values() if isinstance(cls, type) and issubclass(cls, enum.IntEnum) and len(cls)]
PROTO_ENUMS = {name: each for source in SOURCES for name, each in source.DESCRIPTOR.enum_types_by_name.items()}

HINTS = {
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_INT32: int,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_DOUBLE: float,
}
WELL_KNOWN = {
    "google.protobuf.Timestamp": datetime,
    "google.protobuf.Duration": timedelta,
    "google.protobuf.Struct": model.JsonObject,
    "google.protobuf.Value": Any,
}


def hint_of(field: FieldDescriptor) -> Any:
    """The Python type of one value of a field, by the contract's own words."""
    if field.enum_type is not None:
        return getattr(model, field.enum_type.name)

    if field.message_type is None:
        return HINTS[field.type]

    name = field.message_type.full_name
    return WELL_KNOWN[name] if name in WELL_KNOWN else getattr(model, field.message_type.name)


def expected(descriptor: Any) -> dict[str, Any]:
    """The fields a message's dataclass must have, in order, and their hints."""
    hints: dict[str, Any] = {}
    for field in sorted(descriptor.fields, key=lambda each: each.number):
        oneof = field.containing_oneof
        if oneof is not None and not oneof.name.startswith("_"):
            hints[oneof.name] = hint_of(field) | hints.get(oneof.name)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            hints[field.name] = Mapping[str, str]
        elif field.is_repeated:
            hints[field.name] = tuple[hint_of(field), ...]  # type: ignore[misc]
        elif field.has_presence and hint_of(field) is not Any:
            hints[field.name] = hint_of(field) | None
        else:
            hints[field.name] = hint_of(field)

    return hints


def test_every_dataclass_has_a_message_but_the_fact_that_is_not_known() -> None:
    assert set(CLASSES) - set(wire.MESSAGES) == {model.UnknownFact}


@pytest.mark.parametrize("cls", wire.MESSAGES, ids=lambda cls: cls.__name__)
def test_fields_and_kinds_agree(cls: type) -> None:
    wanted = expected(wire.MESSAGES[cls].DESCRIPTOR)
    if cls is model.Event:  # an event always says something, if only that its fact is not known
        wanted["fact"] = typing.Union[*(set(typing.get_args(wanted["fact"])) - {type(None)}), model.UnknownFact]

    hints = typing.get_type_hints(cls)
    assert [field.name for field in fields(cls)] == list(wanted)
    assert hints == wanted


@pytest.mark.parametrize("cls", wire.MESSAGES, ids=lambda cls: cls.__name__)
def test_everything_is_optional_so_that_a_newer_field_never_breaks_an_older_program(cls: type) -> None:
    assert wire.decode(cls, b"") == cls()


@pytest.mark.parametrize("cls", wire.MESSAGES, ids=lambda cls: cls.__name__)
def test_the_codec_sees_every_field_once(cls: type) -> None:
    shape = shape_of(cls)
    numbers = [member.number for field in shape.fields for member in field.members or (field,)]
    assert numbers == sorted(field.number for field in shape.message.DESCRIPTOR.fields)


def test_a_dataclass_that_differs_from_its_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.StepRef.__annotations__, "plan_id", "int")
    with pytest.raises(TypeError, match=r"StepRef\.plan_id is <class 'int'>, by its message <class 'str'>"):
        shape_of.__wrapped__(model.StepRef)


@pytest.mark.parametrize("cls", ENUMS, ids=lambda cls: cls.__name__)
def test_enums_agree(cls: type[enum.IntEnum]) -> None:
    descriptor = PROTO_ENUMS[cls.__name__]
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    assert {member.name: int(member) for member in cls} == {
        value.name.removeprefix(prefix): value.number for value in descriptor.values
    }
    assert cls(9_999) is cls(0)


def test_every_enum_of_the_contract_is_of_the_vocabulary() -> None:
    assert {cls.__name__ for cls in ENUMS} == set(PROTO_ENUMS)


def test_every_reason_of_a_refused_call_has_a_family_and_no_other() -> None:
    refusals = {reason for reason in model.ErrorReason if 0 < reason <= model.ErrorReason.JOURNAL_DAMAGED}
    assert set(errors.FAMILIES) == refusals


def test_every_family_is_found_by_its_status() -> None:
    for family in errors.FAMILIES.values():
        assert errors.STATUSES[family.status] is family


def test_the_oneofs_are_told_apart_by_type() -> None:
    for cls in wire.MESSAGES:
        for field in shape_of(cls).fields:
            if field.kind is Kind.ONEOF:
                types = [member.type or str for member in field.members]
                assert len(set(types)) == len(types), f"{cls.__name__}.{field.name}"


def test_dataclasses_are_frozen_and_hold_no_dictionary() -> None:
    for cls in wire.MESSAGES:
        value = cls()
        assert not hasattr(value, "__dict__")
        assert replace(value) == value
