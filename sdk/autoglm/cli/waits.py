"""Steps that wait for a person: what is asked, which decisions there are, and the command that makes each. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from autoglm._dataclasses import dataclass
from autoglm.cli.session import Target
from autoglm.cli.text import moment, one_line, plain_json
from autoglm.cli.tree import WAITING_WORDS
from autoglm.model import Approve, Decision, Reject, Retry, Step, StepState, Waiting, WaitingReason

ARGUMENTS_CHARS_MAX = 16 << 10
"""How much of the arguments a question shows."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits, of some plan."""

    plan_id: str
    step_id: str
    tool: str
    waiting: Waiting
    title: str = ""

    @property
    def decisions(self) -> tuple[str, ...]:
        """The decisions that take no more than a word, by the flag of ``resolve``."""
        return decisions(self.waiting.reason)


def decisions(reason: WaitingReason) -> tuple[str, ...]:
    """Give the decisions that take no more than a word, by the flag of ``resolve``."""
    match reason:
        case WaitingReason.OUTCOME_UNKNOWN:
            return ("retry", "reject")

        case WaitingReason.INPUT:
            return ("reject",)

        case _:
            return ("approve", "reject")


def waits_of(plan_id: str, steps: tuple[Step, ...]) -> list[Wait]:
    """Find the steps that wait."""
    return [
        Wait(plan_id, step.id, step.tool, step.waiting, step.title)
        for step in steps
        if step.state is StepState.WAITING and step.waiting is not None
    ]


def decision(word: str, comment: str = "") -> Decision:
    """Give the decision that a flag stands for."""
    match word:
        case "approve":
            return Decision(Approve())

        case "retry":
            return Decision(Retry())

        case "reject":
            return Decision(Reject(reason=comment))

        case _:
            raise ValueError(word)


def resolve_command(wait: Wait, word: str, target: Target) -> str:
    """Give the command line that decides; it names the wait, so that it cannot decide about a later one."""
    return command(target, "resolve", wait.plan_id, wait.step_id, "--wait", str(wait.waiting.sequence), f"--{word}")


def command(target: Target, *words: str) -> str:
    """Give a command line for the same server, ready to be pasted."""
    flags: list[str] = []

    if target.address:
        flags += ["--address", target.address]

    if target.data_dir:
        flags += ["--data-dir", target.data_dir]

    return shlex.join(["autoglm", *flags, *words])


def question(wait: Wait) -> Iterator[str]:
    """Say what is asked: the step, why, and what exactly would be called."""
    waiting = wait.waiting
    title = f" ({one_line(wait.title, 80)})" if wait.title else ""
    yield f"{one_line(wait.step_id)}{title} {WAITING_WORDS.get(waiting.reason, 'waits')}"

    if waiting.message:
        yield f"  {one_line(waiting.message, 500)}"

    if waiting.expire_time is not None:
        yield f"  until {moment(waiting.expire_time)}"

    yield f"  {one_line(wait.tool)} with"
    text = plain_json(waiting.arguments or {}, indent=2)
    rest = len(text) - ARGUMENTS_CHARS_MAX

    for line in text[:ARGUMENTS_CHARS_MAX].splitlines():
        yield f"    {line}"

    if rest > 0:
        yield f"    … NOT ALL IS SHOWN: {rest:,} more characters; see `autoglm show {wait.plan_id} --json`"


def commands(wait: Wait, target: Target) -> Iterator[str]:
    """Give the command line of each decision."""
    for word in wait.decisions:
        yield f"  {word + ':':<9}{resolve_command(wait, word, target)}"
