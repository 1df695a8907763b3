"""The parts ``mutated`` and ``fuzz`` in small: what they send is taken, and what they look for would be seen."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from autoglm import _watch
from autoglm.errors import InvalidRequestError
from autoglm.model import Violation
from autoglm_server.planner.llm.scanner import Scanner
from autoglm_server.service.status import to_status, trailing
from tests.reliability import fuzz, fuzz_targets, mutated
from tests.reliability.fuzz_answers import (
    answer_seeds,
    answered,
    joined,
    messages_of,
    plan_seeds,
    planned,
    watch_seeds,
    watched,
)
from tests.reliability.mutated_edge import LISTS_TOOLS, Context, faults_of, inside

ROOT = Path(__file__).parents[2]
GET = "/autoglm.v1.PlanService/GetPlan"
CREATE = "/autoglm.v1.PlanService/CreatePlan"


@pytest.fixture(autouse=True)
def logs_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


async def test_mutated_requests_are_accepted_or_refused_in_words() -> None:
    logging.disable(logging.CRITICAL)
    taken = await mutated.attack(5, 80)
    assert taken.improper == taken.dear == []
    assert taken.stuck == ""
    assert taken.read["refused"]
    assert taken.codes["INVALID_ARGUMENT"]


async def test_what_the_edge_does_not_catch_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.disable(logging.CRITICAL)
    with monkeypatch.context() as patch:
        mutated.a_handler_that_raises(patch)
        async with inside() as edge:
            assert "INTERNAL" in await mutated.put(edge, CREATE, b"", mutated.Taken())

    with monkeypatch.context() as patch:
        mutated.a_boundary_that_lets_errors_out(patch)
        async with inside() as edge:
            assert "InvalidRequestError was raised" in await mutated.put(edge, GET, b"", mutated.Taken())

    with monkeypatch.context() as patch:
        mutated.places_that_are_not_given_back(patch)
        async with inside() as edge:
            await edge.ask(LISTS_TOOLS, b"")
            assert "still hold places" in await edge.still_serves()


def test_an_improper_end_of_a_call_is_named() -> None:
    def ended(code: grpc.StatusCode, *violations: Violation, details: str = "") -> Context:
        status = to_status(InvalidRequestError.of(violations or [Violation("f", "is wrong", "WRONG")]))
        return Context(code, details or status.message, trailing(status))

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert faults_of(Context()) == ""
    assert faults_of(ended(invalid)) == ""
    assert "INTERNAL" in faults_of(ended(grpc.StatusCode.INTERNAL))
    assert "without details" in faults_of(Context(invalid, "no"))
    assert "do not say the same" in faults_of(ended(invalid, details="something else"))
    assert "do not say the same" in faults_of(ended(grpc.StatusCode.NOT_FOUND))
    assert "without words" in faults_of(ended(invalid, Violation("f", "", "")))


def test_a_seed_makes_the_same_requests() -> None:
    def made(seed: int) -> list[Any]:
        random = Random(seed)
        return [mutated._request(random, large=False) for _ in range(20)]

    assert made(1) == made(1) != made(2)
    assert mutated._large(Random(1), 2) == mutated._large(Random(1), 2)


@pytest.mark.parametrize("name", ["event", "reference", "expression", "text"])
def test_a_target_takes_its_seeds_and_garbage(name: str) -> None:
    target = fuzz_targets.TARGETS[name]
    eat = target.make()
    for data in (*target.seeds(), b"", b"\xff\x00", b"${", b'{"steps":[{}]}'):
        eat(data)


def test_a_target_sees_what_is_not_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoglm import wire

    encode = wire.encode
    seed, *_ = fuzz_targets._events()
    monkeypatch.setattr(wire, "encode", lambda value: encode(value)[:-2])
    with pytest.raises((fuzz_targets.BrokenPromiseError, wire.WireError)):
        fuzz_targets.event()(seed)


async def test_what_others_answer_is_read_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for eat, seeds in ((watched, watch_seeds()), (planned, plan_seeds())):
        for seed in seeds:
            for end in range(0, len(seed), 7):
                eat(seed[:end])

    for seed in answer_seeds():
        for end in range(0, len(seed), 7):
            await answered(seed[:end])

    monkeypatch.setattr(_watch, "_check_dense", lambda *_: None)  # the controls: a watch that passes over a gap,
    feed = Scanner.feed
    monkeypatch.setattr(
        Scanner, "feed", lambda self, text: feed(self, text.rstrip())
    )  # and a reader that looks at cuts
    with pytest.raises(AssertionError, match="was given as the"):
        watched(joined([*messages_of(watch_seeds()[0])][1:]))

    with pytest.raises(AssertionError, match="cut at every"):
        planned(b"\x00Some words.")


def test_only_what_guides_the_fuzzer_is_instrumented() -> None:
    left_out = fuzz_targets.left_out()
    assert "autoglm_server.app" in left_out
    assert not set(left_out) & set(fuzz_targets.INSTRUMENTED)
    ours = [name for name in fuzz_targets.INSTRUMENTED if not name.startswith("jmespath")]
    for name in ours:
        path = Path(*name.split(".")).with_suffix(".py")
        assert any((ROOT / base / path).is_file() for base in ("sdk", "server", "")), name


def test_the_end_of_a_fuzzer_is_understood(tmp_path: Path) -> None:
    units = "stat::number_of_executed_units: 12\n"
    assert fuzz.judge("text", 0, units, []) == fuzz.Found(12)
    assert "nothing was fuzzed" in fuzz.judge("text", 0, "no atheris", []).faults[0]
    assert "status 1" in fuzz.judge("text", 1, "ModuleNotFoundError", []).faults[0]

    crash = tmp_path / "found-crash-1f"
    crash.write_bytes(b"\xff{")
    log = f" === Uncaught Python exception: ===\nKeyError: 'x'\nTraceback\n{units}"
    (fault,) = fuzz.judge("text", 77, log, [crash]).faults
    assert fault == (
        "text, crash: KeyError: 'x'; repeat it with: python -m tests.reliability.fuzz_targets text --input /3s="
    )


def test_what_failed_once_is_given_again() -> None:
    stumbles = base64.b64encode(bytes([0xA7, 0x03, 0x51, 0, 0xE0, 0, 0x0C, 0])).decode()
    lines = ["# a comment", "", f"planted {stumbles}  # a bug", "text e30="]
    count, faults = fuzz.repeat(fuzz.read(lines))
    assert count == 2
    assert len(faults) == 1
    assert faults[0].startswith("planted, again: PlantedError")
    assert all(target in fuzz_targets.TARGETS for target, _ in fuzz.read(fuzz.REGRESSIONS.read_text().splitlines()))
