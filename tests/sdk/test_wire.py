"""The wire: what goes out comes back, by bytes and by text, and what cannot is refused with its place."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autoglm import model, wire
from autoglm._bytes import Entries, FixedEntries, Varints
from autoglm._codec import codecs
from autoglm.model import Event, Failure, PlanCreated, StepFailed, StepSucceeded, ToolResult
from autoglm.v1 import event_pb2, plan_pb2, plan_service_pb2
from tests import strategies

CLASSES = sorted(wire.MESSAGES, key=lambda cls: cls.__name__)
NOT_FINITE = Value(number_value=math.inf)
NOW = datetime(2026, 3, 1, 12, 30, 15, 123_456, tzinfo=UTC)

quick = settings(max_examples=15, deadline=None)
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def there_and_back(value: Any) -> Any:
    return wire.decode(type(value), wire.encode(value))


def check_round_trip(cls: type, trip: Callable[[Any], Any], **options: Any) -> None:
    @settings(quick, **options)
    @given(strategies.of(cls))
    def prop(value: Any) -> None:
        assert trip(value) == value

    prop()


# --- bytes


@each_class
def test_what_is_encoded_is_decoded_the_same_and_as_short_as_protobuf_writes_it(cls: type) -> None:
    """The bytes are the very same, but for the order of what has none: the keys of a map."""

    @quick
    @given(strategies.of(cls))
    def prop(value: Any) -> None:
        ours, message = wire.encode(value), wire.to_message(value)
        theirs = message.SerializeToString()
        assert wire.decode(cls, ours) == value
        assert wire.from_message(message) == value
        assert sorted(ours) == sorted(theirs)
        assert len(ours) == len(theirs)

    prop()


@given(
    st.text(max_size=200) | st.just("k" * 20_000), st.text(max_size=20_000) | st.integers(0, 20_000).map("x".__mul__)
)
@settings(deadline=None)
def test_entries_of_any_length_are_what_protobuf_would_write(key: str, text: str) -> None:
    for value in (text, [text], {text: key}, 3, True, None):
        struct = wire.to_struct({key: value})
        assert wire.from_message(struct) == {key: value}
        assert (
            wire.encode(ToolResult({key: value}))
            == plan_pb2.ToolResult(output=Value(struct_value=struct)).SerializeToString()
        )


@pytest.mark.parametrize("micros", [0, 1, 2_097, 2_098, 268_435, 268_436, 999_999])
def test_times_are_as_protobuf_would_write_them(micros: int) -> None:
    time = NOW.replace(microsecond=micros)
    message = Timestamp()
    message.FromDatetime(time)
    assert wire.encode(model.Round(start_time=time)) == plan_pb2.Round(start_time=message).SerializeToString()


@pytest.mark.parametrize(
    ("cls", "dropped"),
    [
        (Event, "principal"),
        (model.Decision, "reject"),
        (model.Step, "skipped_by"),
        (ToolResult, "output"),
        (model.Plan, "labels"),
    ],
    ids=str,
)
def test_control_a_codec_that_drops_a_field_is_caught(cls: type, dropped: str) -> None:
    def forgetful(value: Any) -> Any:
        message = wire.to_message(value)
        message.ClearField(dropped)
        return wire.from_message(message)

    with pytest.raises(AssertionError):
        check_round_trip(cls, forgetful, max_examples=300, database=None, phases=[Phase.generate])


@each_class
def test_the_codec_takes_every_field_of_the_message(cls: type) -> None:
    """Against protobuf's own view, not ours: set each field alone, by reflection, and see it in the dataclass."""
    message = wire.MESSAGES[cls]
    for field in message.DESCRIPTOR.fields:
        one = message()
        if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(one, field.name)["k"] = "v"
        elif field.is_repeated and field.message_type is not None:
            getattr(one, field.name).add()
        elif field.is_repeated:
            getattr(one, field.name).append(1 if field.enum_type else "x")
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Value":
            getattr(one, field.name).number_value = 1
        elif field.message_type is not None:
            getattr(one, field.name).SetInParent()
        else:
            setattr(one, field.name, "x" if field.type == field.TYPE_STRING else 1)

        found = wire.from_message(one)
        assert found != cls(), field.name
        assert wire.to_message(found) == one, field.name


def test_absent_messages_are_none_and_empty_ones_are_not() -> None:
    assert there_and_back(StepFailed()).failure is None
    assert there_and_back(StepFailed(Failure())).failure == Failure()
    assert there_and_back(model.StepDraft(arguments={})).arguments == {}
    assert there_and_back(model.StepDraft()).arguments is None
    assert there_and_back(model.PlanOptions(max_steps=0, enable_tool_call=False)).max_steps == 0
    assert there_and_back(model.PlanOptions()).enable_tool_call is None


def test_an_unset_value_and_a_null_are_both_none() -> None:
    null = plan_pb2.ToolResult()
    null.output.null_value = 0  # type: ignore[assignment]
    bare = plan_pb2.ToolResult(output=Value())
    assert wire.from_message(null) == wire.from_message(bare) == ToolResult()
    assert wire.encode(ToolResult(output=None)) == b""
    assert there_and_back(ToolResult(output=[None])).output == [None]


def test_a_fact_of_a_newer_version_is_unknown_and_counts() -> None:
    newer = wire.encode(Event("p", 7, fact=model.UnknownFact())) + b"\xa2\x06\x02\x0a\x00"  # field 100, two bytes
    event = wire.decode(Event, newer)
    assert event == Event("p", 7, fact=model.UnknownFact(100))
    assert wire.decode(Event, wire.encode(event)).fact == model.UnknownFact(0)


def test_a_new_field_of_the_envelope_is_not_taken_for_a_fact() -> None:
    newer = (
        wire.encode(Event("p", 7)) + b"\x4a\x02hi" + b"\xf8\x06\x01"
    )  # field 9 is the envelope's, field 111 a number
    assert wire.decode(Event, newer) == Event("p", 7, fact=model.UnknownFact(0))


def test_an_enum_of_a_newer_version_is_unspecified() -> None:
    assert wire.from_message(plan_pb2.Plan(state=77)).state is model.PlanState.UNSPECIFIED  # type: ignore[arg-type]


def test_a_plan_can_be_read_from_a_request_to_run_it() -> None:
    run = plan_service_pb2.RunPlanRequest(request="add", request_id="r", durable_only=True, cancel_on_disconnect=True)
    assert wire.decode(model.CreatePlanRequest, run.SerializeToString()) == model.CreatePlanRequest(
        "add", request_id="r"
    )


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(wire.WireError, match="not the bytes of a Event"):
        wire.decode(Event, b"\x0a\xff")

    with pytest.raises(TypeError, match="UnknownFact is not a dataclass"):
        wire.encode(model.UnknownFact(3))

    with pytest.raises(TypeError, match=r"autoglm\.v1\.GetPlanRequest has no dataclass"):
        wire.from_message(plan_service_pb2.GetPlanRequest())


@given(st.binary(max_size=60), st.sampled_from(CLASSES))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_decoder(data: bytes, cls: type) -> None:
    try:
        found: Any = wire.decode(cls, data)
    except wire.WireError:
        return

    if isinstance(found, Event) and isinstance(found.fact, model.UnknownFact):
        found = replace(found, fact=model.UnknownFact())  # only its number was kept, and nothing is written for it

    assert there_and_back(found) == found


# --- times


@given(strategies.times(), st.integers(-1439, 1439))
def test_times_are_exact_whatever_their_zone(time: datetime, minutes: int) -> None:
    try:
        elsewhere = time.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        return

    found = there_and_back(model.Round(start_time=elsewhere)).start_time
    assert found == time
    assert found.tzinfo is UTC


def test_times_are_what_protobuf_says_they_are() -> None:
    message = wire.to_message(Event(event_time=NOW))
    assert isinstance(message, event_pb2.Event)
    assert message.event_time.ToJsonString() == "2026-03-01T12:30:15.123456Z"
    assert wire.from_message(Timestamp(seconds=-1, nanos=999_999_999)) == datetime(
        1969, 12, 31, 23, 59, 59, 999_999, UTC
    )


@pytest.mark.parametrize("length", ["1.5s", "-0.5s", "-1.000001s", "0s", "315576000000s"])
def test_durations_are_what_protobuf_says_they_are(length: str) -> None:
    message = Duration()
    message.FromJsonString(length)
    found = wire.from_message(message)
    assert found == message.ToTimedelta()
    assert wire.to_message(model.StepRetryScheduled(delay=found)) == event_pb2.StepRetryScheduled(delay=message)


@pytest.mark.parametrize(
    ("value", "field", "told"),
    [
        (Event(event_time=NOW.replace(tzinfo=None)), "event_time", "no time zone"),
        (model.StepDraft(timeout=timedelta(days=4_000_000)), "timeout", "10,000 years"),
        (model.StepDraft(arguments={"a": [1, math.nan]}), "arguments.a[1]", "nan is no JSON number"),
        (model.StepDraft(arguments={"a b": math.inf}), 'arguments["a b"]', "inf is no JSON number"),
        (Event(fact=StepSucceeded(ToolResult({"x": {1}}))), "step_succeeded.result.output.x", "set is not a JSON type"),
        (ToolResult(output={1: 2}), "output", "the key 1 is not a string"),
        (ToolResult(output="\ud800"), "output", "surrogate"),
        (model.StepDraft(title="\ud800"), "title", "surrogate"),
        (model.RetryPolicy(backoff_multiplier=math.inf), "backoff_multiplier", "inf"),
        (model.RetryPolicy(max_attempts=1 << 31), "max_attempts", "32 bits"),
        (model.Artifact(size_bytes=1 << 63), "size_bytes", "64 bits"),
        (Event(fact=PlanCreated(labels={"k": 3})), "plan_created.labels", "both be str"),  # type: ignore[dict-item]
        (Event(fact="done"), "fact", "'done' is str, not PlanCreated or"),  # type: ignore[arg-type]
        (Event(fact=None), "fact", "None is NoneType, not PlanCreated or"),  # type: ignore[arg-type]
        (model.Decision(model.UnknownFact()), "kind", "not Approve or Reject or Retry or ToolResult"),  # type: ignore[arg-type]
        (model.Plan(steps=(model.Step(), 3)), "steps[1]", "3 is int, not Step"),  # type: ignore[arg-type]
        (model.Plan(id=3), "id", "3 is int, not str"),  # type: ignore[arg-type]
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_cannot_be_carried_is_named(value: Any, field: str, told: str) -> None:
    for way in (wire.encode, wire.to_json):
        with pytest.raises(wire.WireError) as caught:
            way(value)

        assert [violation.field for violation in caught.value.violations] == [field]
        assert told in caught.value.violations[0].description


def test_all_faults_are_told_at_once() -> None:
    steps = tuple(model.StepDraft(arguments={"x": math.nan}) for _ in range(3))
    with pytest.raises(wire.WireError) as caught:
        wire.encode(model.CreatePlanRequest(steps=steps))

    assert [each.field for each in caught.value.violations] == [f"steps[{i}].arguments.x" for i in range(3)]


def test_the_number_of_faults_told_is_bounded() -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.to_value([math.nan] * 1_000)

    assert len(caught.value.violations) == 50


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            plan_service_pb2.CreatePlanRequest(steps=[plan_pb2.StepDraft(arguments=Struct(fields={"a": NOT_FINITE}))]),
            "steps[0].arguments.a",
        ),
        (plan_pb2.StepDraft(timeout=Duration(seconds=1 << 60)), "timeout"),
        (plan_pb2.StepDraft(timeout=Duration(seconds=1, nanos=-5)), "timeout"),
        (plan_pb2.Step(start_time=Timestamp(seconds=1 << 60)), "start_time"),
        (plan_pb2.Step(start_time=Timestamp(nanos=-1)), "start_time"),
        (plan_pb2.RetryPolicy(backoff_multiplier=math.nan), "backoff_multiplier"),
        (plan_pb2.ToolResult(output=NOT_FINITE), "output"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_means_nothing_is_named(message: Message, field: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.from_message(message)

    assert [violation.field for violation in caught.value.violations] == [field]


# --- JSON values


@given(strategies.json_values())
def test_json_values_come_back_unchanged(value: Any) -> None:
    assert exact(wire.from_message(wire.to_value(value))) == exact(value)
    assert exact(wire.parse_json(wire.canonical_json(value))) == exact(value)
    assert exact(wire.normal_json(value)) == exact(value)


def exact(value: Any) -> Any:
    """A form in which 1, 1.0 and True differ."""
    return json.dumps(value, sort_keys=True)


@given(st.recursive(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_the_wire_gives_the_normal_form(value: Any) -> None:
    normal = wire.normal_json(value)
    assert exact(wire.from_message(wire.to_value(value))) == exact(normal)
    assert exact(wire.normal_json(normal)) == exact(normal)
    assert wire.digest(value) == wire.digest(normal)


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (3.0, 3),
        (-0.0, 0),
        (2**53 - 1, 2**53 - 1),
        (2**53, "9007199254740992"),
        (-(2**53) - 1, "-9007199254740993"),
        (float(2**53), float(2**53)),
        (1e300, 1e300),
        (True, True),
        ((1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (model.Effect.READ_ONLY, 1),
    ],
)
def test_normal_form(value: Any, normal: Any) -> None:
    assert exact(wire.normal_json(value)) == exact(normal)
    assert exact(there_and_back(ToolResult(output=value)).output) == exact(normal)


def test_canonical_text_and_digest() -> None:
    assert wire.canonical_json({"b": 1.0, "a": [2**60, "é", None]}) == '{"a":["1152921504606846976","é",null],"b":1}'
    assert wire.digest({"b": 1, "a": 2}) == wire.digest({"a": 2.0, "b": 1})
    assert wire.digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert wire.digest_text("{}") == wire.digest({})


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {"a": [-math.inf]}, {1: 2}, object(), "\udfff", [10**5000]], ids=lambda _: ""
)
def test_what_is_no_json_has_no_text(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.canonical_json(value)

    with pytest.raises(wire.WireError):
        wire.to_value(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.0", 3),
        ("1e2", 100),
        ("-0", 0),
        ("1.5", 1.5),
        ("9007199254740993", 9007199254740993),
        (b'{"a": "\\u00e9"}', {"a": "é"}),
    ],
)
def test_json_is_parsed(text: str | bytes, value: Any) -> None:
    assert exact(wire.parse_json(text)) == exact(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("NaN", "NaN is no JSON"),
        ("[-Infinity]", "-Infinity is no JSON"),
        ("1e400", "larger than a double"),
        (
            '{"a": [1, {"b c": NaN, "d": 1e400}]}',
            r'^a\[1\]\["b c"\]: NaN is no JSON.*; a\[1\]\.d: the number 1e400 is larger',
        ),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', 'the key "c" stands twice'),
        ("[1,]", "not JSON: .* at line 1, column"),
        ("", "not JSON"),
        (b"\xff", "not UTF-8: byte 0"),
        (r'"\ud800"', "surrogate"),
        ("[" * 32 + "1" + "]" * 32, "too deep"),
        ("[" * 100_000, "deep"),
        ("1" * 5_000, "digits"),
    ],
)
def test_json_is_parsed_strictly(text: str | bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        wire.parse_json(text)


def test_the_length_of_a_text_is_bounded() -> None:
    with pytest.raises(ValueError, match="longer than 3 bytes"):
        wire.parse_json("1234", bytes_max=3)


# --- depth: what is allowed can be read back wherever it stands; protobuf reads at most 100 nested messages


def nested(depth: int, bottom: Any) -> Any:
    value = bottom
    for _ in range(depth - 1):
        value = {"a": value}

    return value


def deepest_place(output: Any) -> Event:
    return Event("p", 1, fact=model.StepResolved(1, model.Decision(ToolResult(output))))


@pytest.mark.parametrize("bottom", [1, {}, []])
def test_the_deepest_value_can_be_read_in_the_deepest_place(bottom: Any) -> None:
    event = deepest_place(nested(wire.DEPTH_MAX, bottom))
    sent = wire.encode_watch(wire.join_events([wire.encode(event)]), 1, "")
    [found] = plan_service_pb2.WatchPlanResponse.FromString(sent).events
    assert wire.from_message(found) == event
    assert wire.from_json(Event, wire.to_json(event)) == event


def test_control_a_deeper_value_could_be_written_but_never_read() -> None:
    message = event_pb2.Event()
    value = message.step_resolved.decision.result.output
    for _ in range(wire.DEPTH_MAX):
        value = value.struct_value.fields["a"]

    value.number_value = 1
    sent = wire.encode_watch(wire.join_events([message.SerializeToString()]), 1, "")
    with pytest.raises(DecodeError):
        plan_service_pb2.WatchPlanResponse.FromString(sent)


def test_a_value_that_is_too_deep_is_refused() -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.encode(deepest_place(nested(wire.DEPTH_MAX + 1, 1)))

    [violation] = caught.value.violations
    assert violation.reason == "TOO_DEEP"
    assert violation.field.startswith("step_resolved.decision.result.output.a.a")
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(wire.WireError, match="too deep"):
        wire.to_value(cycle)


# --- check_json


def test_check_json_tells_every_fault() -> None:
    value = {"a": math.nan, "b": [1, {2}], "c": nested(40, 1)}
    found = wire.check_json(value, "arguments", bytes_max=1_000)
    assert [(each.field[:14], each.reason) for each in found] == [
        ("arguments.a", "NOT_FINITE"),
        ("arguments.b[1]", "INVALID_TYPE"),
        ("arguments.c.a.", "TOO_DEEP"),
    ]


def test_check_json_bounds_the_text() -> None:
    assert wire.check_json("x" * 98, "output", bytes_max=100) == []
    [found] = wire.check_json("x" * 99, "output", bytes_max=100)
    assert (found.field, found.reason) == ("output", "TOO_LARGE")
    assert "101 bytes; at most 100" in found.description


def test_check_json_bounds_what_the_event_would_carry() -> None:
    zeros = [0] * 1_000  # 2,001 bytes of text
    size = wire.to_value(zeros).ByteSize()
    assert size > 10_000
    assert wire.check_json(zeros, "output", bytes_max=size) == []
    assert wire.check_json(zeros, "output", bytes_max=size - 1)


@given(strategies.json_values(leaves=30))
def test_a_value_is_at_most_ten_times_its_text(value: Any) -> None:
    assert wire.to_value(value).ByteSize() <= 10 * len(wire.canonical_json(value).encode())


# --- JSON text of messages, against protobuf's own


@each_class
def test_text_means_the_same_to_protobuf(cls: type) -> None:
    @quick
    @given(strategies.of(cls))
    def prop(value: Any) -> None:
        text, message = wire.to_json(value), wire.to_message(value)
        assert json_format.Parse(text, wire.MESSAGES[cls]()) == message
        assert wire.from_json(cls, text) == value
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        for preserving in (False, True):
            theirs = json_format.MessageToJson(message, preserving_proto_field_name=preserving)
            assert wire.from_json(cls, theirs) == value

    prop()


def test_text_of_an_event() -> None:
    event = Event("p", 12, NOW, "s1", 1, fact=StepSucceeded(ToolResult({"km": 3.0, "big": 2**60})))
    assert wire.to_json(event) == (
        '{"attempt":1,"eventTime":"2026-03-01T12:30:15.123456Z","planId":"p","sequence":"12","stepId":"s1",'
        '"stepSucceeded":{"result":{"output":{"big":"1152921504606846976","km":3}}}}'
    )


def test_a_struct_and_a_value_by_themselves() -> None:
    assert wire.to_struct({"a": [1]}) == Struct(fields={"a": wire.to_value([1])})
    assert wire.from_message(wire.to_struct({"a": 1.0})) == {"a": 1}


# --- a watch


@given(
    st.lists(st.binary(max_size=300) | st.just(b"x" * 20_000), max_size=5),
    st.integers(0, 2**63 - 1),
    strategies.texts(),
)
def test_a_watch_of_stored_bytes_is_what_protobuf_would_write(
    bodies: list[bytes], sequence: int, journal_id: str
) -> None:
    # Any body stands for an event here: as an unknown field, it is kept as it is.
    events = [b"\xfa\x07" + varint(len(body)) + body for body in bodies]
    message = plan_service_pb2.WatchPlanResponse(sequence=sequence, journal_id=journal_id)
    for event in events:
        message.events.append(event_pb2.Event.FromString(event))

    sent = wire.encode_watch(wire.join_events(events), sequence, journal_id)
    assert sent == message.SerializeToString()
    run = plan_service_pb2.RunPlanResponse.FromString(sent)
    assert run.SerializeToString() == message.SerializeToString()

    everything = plan_service_pb2.WatchPlansResponse(cursor=journal_id, events=message.events)
    assert wire.encode_watch_all(wire.join_events(events), journal_id) == everything.SerializeToString()


def varint(number: int) -> bytes:
    head = b""
    while number > 127:
        head, number = head + bytes([number % 128 + 128]), number // 128

    return head + bytes([number])


def test_what_was_written_is_kept_within_bounds() -> None:
    entries, heads, numbers = Entries(0x1A), FixedEntries(0x20, 1), Varints(64)
    for number in range(10_000):
        assert entries[f"key{number}", number] == entries[f"key{number}", number]
        assert heads[f"key{number}"] == heads[f"key{number}"]
        assert numbers[number << 10] == varint(number << 10)

    assert max(len(entries), len(heads), len(numbers)) <= 4096
    assert entries["x" * 1_000, 1]
    assert ("x" * 1_000, 1) not in entries


def test_a_sequence_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        wire.encode_watch(b"", -1, "")


def test_every_codec_is_compiled() -> None:
    assert set(codecs()) == set(wire.MESSAGES)
