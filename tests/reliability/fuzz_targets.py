"""What is fuzzed: each parser of ours, with seeds from our own encoders, and what it may and may not do.

A target takes bytes and raises whatever the product should not have raised; also when what was read is not the same after it
was written and read again. One input again, without the fuzzer:

    python -m tests.reliability.fuzz_targets reference --input BASE64
"""

# ruff: noqa: T201 - a command line prints
from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import logging
import sys
import typing
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

Eat: TypeAlias = Callable[[bytes], None]
"""Takes one input."""

INPUT_BYTES_MAX: Final = 4096
INPUT_SECONDS: Final = 10
"""An input that takes longer hangs."""
RSS_MIB: Final = 1024
PACKAGES: Final = ("autoglm", "autoglm_server", "jmespath", "tests")
INSTRUMENTED: Final = (
    *(
        f"autoglm.{name}"
        for name in ("wire", "_watch", "_codec", "_faults", "_json", "_shape", "_text", "_values", "errors")
    ),
    *(f"autoglm_server.service.{name}" for name in ("bounds", "interceptors", "plans", "status", "validate")),
    *(f"autoglm_server.scheduler.{name}" for name in ("dependencies", "drafts", "subplans")),
    *(f"autoglm_server.planner.llm.{name}" for name in ("drafts", "reading", "scanner", "strings")),
    "autoglm_server.tools.providers.grpc",
    *(f"autoglm_server.tools.{name}" for name in ("expressions", "fields", "references", "validation")),
    *(f"jmespath.{name}" for name in ("ast", "functions", "lexer", "parser", "visitor")),
    "tests.reliability.fuzz_planted",
)
"""Whose branches guide the fuzzer. Every other module would only make the start longer, by ten seconds all together."""
PLANTED: Final = "planted"
_OUTPUT: Final = {"items": [{"name": "x", "n": 1}, {"name": None}], "text": "${a} $${b}", "n": 2.5, "deep": [[[1]]]}


class BrokenPromiseError(AssertionError):
    """Something was done that no exception tells of."""


def event() -> Eat:
    """Read the bytes of an event; what is read is the same when it is written and read again."""
    from autoglm.model import Event, UnknownFact
    from autoglm.wire import WireError, decode, encode

    def eat(data: bytes) -> None:
        try:
            found = decode(Event, data)
        except WireError as refused:
            _words(refused.violations)
            return

        if not isinstance(found.fact, UnknownFact):  # what a newer version wrote is read, and never written
            _same(found, decode(Event, encode(found)))

    return eat


def create() -> Eat:
    """Ask for a plan: through the boundary and all checks of the service and the scheduler, as a dry run."""
    from tests.reliability.mutated_edge import faults_of, inside

    logging.disable(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    edge = loop.run_until_complete(AsyncExitStack().enter_async_context(inside()))
    escaped: list[Exception] = []
    _keep_what_is_internal(escaped)

    async def ask(data: bytes) -> None:
        context = await edge.ask("/autoglm.v1.PlanService/CreatePlan", data)
        await asyncio.sleep(0)
        if fault := faults_of(context):
            raise BrokenPromiseError(fault) from (escaped.pop() if escaped else None)

    return lambda data: loop.run_until_complete(ask(data))


def _keep_what_is_internal(escaped: list[Exception]) -> None:
    """Let what the boundary answers INTERNAL be seen: it goes to the log, which is silent here."""
    from autoglm_server.service import interceptors

    def keep(*_: object, **__: object) -> None:
        error = sys.exception()
        escaped[:] = [error] if isinstance(error, Exception) else []

    log: Any = interceptors._log
    log.exception = keep


def reference() -> Eat:
    """Read a text as the argument of a step, and fill in its references."""
    from autoglm.errors import InvalidRequestError
    from autoglm_server.tools.references import compile_references, escape
    from autoglm_server.tools.tool import ToolCallError

    def eat(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        literal = compile_references({"x": escape(text)}, "arguments")
        if "$${" not in text and not literal.paths:
            _same(literal.resolve(lambda _: None), {"x": text})

        try:
            compile_references({"x": text}, "arguments").resolve(lambda _: _OUTPUT)
        except InvalidRequestError as refused:
            _words(refused.violations)
        except ToolCallError as refused:
            _words(refused.failure.violations)

    return eat


def expression() -> Eat:
    """Compile a JMESPath expression, and apply it."""
    from autoglm_server.tools.expressions import ExpressionError, compile_expression

    def eat(data: bytes) -> None:
        try:
            compile_expression(data.decode("utf-8", "replace"))(dict(_OUTPUT))
        except ExpressionError as refused:
            if not str(refused):
                raise BrokenPromiseError("an expression was refused without words") from refused

    return eat


def text() -> Eat:
    """Read JSON as a request; what is read is the same when it is written and read again, as text and as bytes."""
    from autoglm.errors import InvalidRequestError
    from autoglm.model import CreatePlanRequest
    from autoglm.wire import WireError, decode, encode, from_json, to_json

    def eat(data: bytes) -> None:
        try:
            found = from_json(CreatePlanRequest, data)
        except InvalidRequestError as refused:
            _words(refused.violations)
            return

        try:
            written = encode(found)
        except WireError as refused:
            _words(refused.violations)
            return

        _same(found, decode(CreatePlanRequest, written))
        _same(found, from_json(CreatePlanRequest, to_json(found)))

    return eat


def watch() -> Eat:
    """Watch a plan at a server that sends what it likes."""
    from tests.reliability.fuzz_answers import watched

    return watched


def answer() -> Eat:
    """Call a tool at a service that answers what it likes."""
    from tests.reliability.fuzz_answers import answered

    loop = asyncio.new_event_loop()
    return lambda data: loop.run_until_complete(answered(data))


def plan() -> Eat:
    """Plan by a model that writes what it likes."""
    from tests.reliability.fuzz_answers import planned

    return planned


def planted() -> Eat:
    """Stumble over a bug that is there on purpose."""
    from tests.reliability.fuzz_planted import stumble

    return stumble


def _words(violations: typing.Sequence[Any]) -> None:
    if not violations or not all(one.description and one.reason for one in violations):
        raise BrokenPromiseError(f"refused without words: {violations!r:.300}")


def _same(one: object, other: object) -> None:
    if one != other:
        raise BrokenPromiseError(f"not the same when it is read again: {one!r:.400} is then {other!r:.400}")


# --- seeds


def _events() -> list[bytes]:
    from autoglm import model
    from autoglm.wire import encode

    now = datetime(2026, 1, 1, tzinfo=UTC)
    facts = [kind() for kind in typing.get_args(model.Fact) if kind is not model.UnknownFact]
    rich: list[Any] = [
        model.PlanCreated(request="15% of 2480", labels={"k": "v"}, options=model.PlanOptions(max_steps=3)),
        model.StepSucceeded(model.ToolResult(output={"n": [1, 2.5, None, True, {"x": "y"}]})),
    ]
    return [encode(model.Event("01j0", number, now, "a", 1, fact=fact)) for number, fact in enumerate(facts + rich, 1)]


def _creates() -> list[bytes]:
    from autoglm import wire
    from autoglm.model import CreatePlanRequest

    return [wire.encode(wire.from_json(CreatePlanRequest, one)) for one in _texts()]


def _texts() -> list[bytes]:
    from tests.reliability.mutated import CREATE_TEXTS

    return [one.encode() for one in CREATE_TEXTS]


def _expressions() -> list[bytes]:
    return [
        b"items[0].name",
        b"items[?n > `1`].{name: name, n: n} | [0]",
        b"join(',', items[*].name)",
        b"sort_by(items, &n)[::-1] || `[]`",
        b"to_string(@) && !contains(text, 'x')",
        b'"quoted".deep[][]',
        b"map(&[@, @], deep)",
    ]


def _references() -> list[bytes]:
    return [b"${a}", b"$${a} and ${b.items[0].name}.", *(b"${a[" + one + b"]}" for one in _expressions())]


def _of_answers(name: str) -> list[bytes]:
    from tests.reliability import fuzz_answers

    seeds: list[bytes] = getattr(fuzz_answers, name)()
    return seeds


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and what a fuzzer begins with."""

    make: Callable[[], Eat]
    seeds: Callable[[], list[bytes]]
    words: tuple[str, ...]
    """What the fuzzer would be long in finding."""


_JSON_WORDS: Final = ("steps", "depends_on", "arguments", "options", "null", "1e400", "\\ud800", "request", "context")
_PATH_WORDS: Final = ("${", "$${", "sort_by(", "join(", "to_string(", "[?", "&", "`", "||", "[::", "@")
TARGETS: Final[dict[str, Target]] = {
    "event": Target(event, _events, ("a", "01j0")),
    "create": Target(create, _creates, ("text.reverse", "math.calculate", "${a}", *_PATH_WORDS)),
    "reference": Target(reference, _references, _PATH_WORDS),
    "expression": Target(expression, _expressions, _PATH_WORDS),
    "text": Target(text, _texts, _JSON_WORDS),
    "watch": Target(watch, lambda: _of_answers("watch_seeds"), ("01j0",)),
    "answer": Target(answer, lambda: _of_answers("answer_seeds"), ("a.txt", "sha256:")),
    "plan": Target(
        plan, lambda: _of_answers("plan_seeds"), ("steps", "answer", "output", "note", "```", "\\ud83d\\ude00")
    ),
    PLANTED: Target(planted, _references, ("a",)),
}


# --- one run


def main() -> int:
    """Fuzz a target for some seconds, or give it one input; the exit status is 0 if nothing was found."""
    flags = argparse.ArgumentParser(prog="python -m tests.reliability.fuzz_targets")
    flags.add_argument("target", choices=tuple(TARGETS))
    flags.add_argument("--input", default="", metavar="BASE64", help="one input instead of many")
    flags.add_argument("--seconds", type=int, default=10)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--folder", type=Path, default=Path(), help="what is found is written there")
    given = flags.parse_args()
    if given.input:
        TARGETS[given.target].make()(base64.b64decode(given.input))
        print("nothing is wrong with it")
        return 0

    import atheris

    target = TARGETS[given.target]
    with atheris.instrument_imports(include=list(PACKAGES), exclude=left_out()):
        eat = target.make()

    corpus = given.folder / "seeds"
    corpus.mkdir()
    for number, one in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(one)

    words = given.folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = {
        "max_total_time": given.seconds,
        "seed": given.seed,
        "max_len": INPUT_BYTES_MAX,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": RSS_MIB,
        "dict": words,
        "artifact_prefix": f"{given.folder}/found-",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], eat)
    atheris.Fuzz()
    return 0


def left_out() -> list[str]:
    """Name the modules of :data:`PACKAGES` that are not instrumented: atheris takes packages whole, or leaves out modules."""
    found: list[str] = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec is not None else ():
            paths = (path.relative_to(place).with_suffix("") for path in Path(place).rglob("*.py"))
            names = (".".join((package, *path.parts)).removesuffix(".__init__") for path in paths)
            found += [name for name in names if name not in INSTRUMENTED]

    return found


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    sys.exit(main())
