"""Requests that are made again are read as if for the first time."""

from __future__ import annotations

import pytest
from pydantic import ByteSize

from autoglm.model import CreatePlanRequest
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.asked import BYTES_MAX, REQUESTS_MAX, STEPS_MAX, Asked
from autoglm_server.service.plans import read_create
from autoglm_server.settings import LimitSettings

LIMITS = LimitSettings()


def message(request_id: str = "r", **more: object) -> pb.CreatePlanRequest:
    made = pb.CreatePlanRequest(request="x", request_id=request_id, labels={"a": "1", "b": "2"}, **more)  # type: ignore[arg-type]
    made.steps.add(id="s", tool="t").arguments.update({"n": 1.5, "l": [1, {"k": None}]})
    return made


def kept(*messages: pb.CreatePlanRequest, limits: LimitSettings = LIMITS) -> Asked:
    asked = Asked(limits)
    for each in messages:
        content = asked.content(each)
        asked.keep(content, *read_create(each, limits, len(content)))

    return asked


def found(asked: Asked, message: pb.CreatePlanRequest) -> tuple[CreatePlanRequest, str] | None:
    return asked.find(asked.content(message), message.request_id)


def test_one_like_it_gives_what_reading_it_gives_and_shares_its_parts() -> None:
    asked = kept(message("one", context_id="c"))
    other = message("two", context_id="c")
    before = pb.CreatePlanRequest.FromString(other.SerializeToString())
    first, second = found(asked, other), found(asked, other)
    assert first == read_create(other, LIMITS)
    assert first is not None
    assert second is not None
    assert first[0].steps is second[0].steps
    assert first[0].labels is second[0].labels
    assert other == before


@pytest.mark.parametrize(
    "other",
    [
        message("two", context_id="d"),
        message("two", validate_only=True),
        message(""),
        message("two\n"),
        message("x" * 129),
        pb.RunPlanRequest(request="x", request_id="two"),
    ],
    ids=["other content", "dry run", "no id", "a control character", "too long an id", "another method"],
)
def test_what_is_not_the_same_and_sound_is_read_anew(other: pb.CreatePlanRequest) -> None:
    assert found(kept(message("one")), other) is None


def test_only_what_is_small_and_can_be_made_again_is_kept_and_only_so_many() -> None:
    large = message()
    large.steps[0].title = "x"
    large.request = "x" * BYTES_MAX
    assert len(kept(large)) == 0
    large.request = "x" * 1000
    assert len(kept(message(""))) == 0
    assert len(kept(message(validate_only=True))) == 0
    assert len(kept(large)) == 1
    wide = message()
    del wide.steps[:]
    for number in range(STEPS_MAX):
        wide.steps.add(id=f"s{number}", tool="time.now")

    assert len(kept(wide)) == 1
    wide.steps.add(id="one-more", tool="time.now")
    assert len(kept(wide)) == 0
    assert len(kept(large, limits=LimitSettings(request_bytes=ByteSize(1200)))) == 0
    assert len(kept(*(message(context_id=str(n)) for n in range(REQUESTS_MAX + 1)))) == 1
