"""Following a plan to its end: events in; a tree, lines or JSON out; questions for the person who looks on."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm.cli import tree, waits
from autoglm.cli.exits import Exit, error_lines, failure_lines, status_of_plan
from autoglm.cli.interrupts import Interrupts
from autoglm.cli.lines import Lines
from autoglm.cli.session import PlanClient, Session, can_unicode
from autoglm.cli.view import View
from autoglm.errors import AutoglmError, CompactedError, LimitError, UnavailableError
from autoglm.model import Event, Plan, PlanCancelled, PlanFailed, PlanState, PlanSucceeded, StepState, StepWaiting

REFRESHES_PER_SECOND = 10
_ASKED_MAX = 5
_ENDS = {PlanSucceeded: PlanState.SUCCEEDED, PlanFailed: PlanState.FAILED, PlanCancelled: PlanState.CANCELLED}


class Screen(Protocol):
    """Where events are shown."""

    def show(self, event: Event) -> None:
        """Show an event that the view has taken in."""
        ...

    def pause(self) -> None:
        """Make room for other lines; the next event goes on."""
        ...

    def close(self) -> None:
        """Leave the last state on the screen."""
        ...


class LineScreen:
    """One line for each event, on stderr."""

    def __init__(self, session: Session, view: View, *, after: int = 0) -> None:
        """Tell the events after the sequence ``after``."""
        self._session = session
        self._lines = Lines(view)
        self._after = after

    def show(self, event: Event) -> None:
        line = self._lines.tell(event)

        # An ephemeral event carries the sequence it came after.
        if line is not None and (event.sequence > self._after or (event.ephemeral and event.sequence == self._after)):
            self._session.tell(line)

    def pause(self) -> None:
        pass

    def close(self) -> None:
        pass


class TreeScreen:
    """The live tree on stderr. It is drawn from the view alone, by rich's thread, at most ten times a second."""

    def __init__(self, session: Session, view: View, lock: threading.Lock) -> None:
        """Draw ``view``, which changes under ``lock`` only."""
        self._session = session
        self._view = view
        self._lock = lock
        self._console = session.console(session.stderr)
        self._glyphs = tree.UNICODE if can_unicode(session.stderr) else tree.ASCII
        self._frame = 0
        self._live: Live | None = None

    def show(self, event: Event) -> None:
        """Begin to draw; what is drawn comes from the view."""
        del event

        if self._live is None:
            self._live = Live(
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                get_renderable=self._draw,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def pause(self) -> None:
        self._stop(transient=True)

    def close(self) -> None:
        self._stop(transient=False)

    def _stop(self, *, transient: bool) -> None:
        if self._live is not None:
            self._live.transient = transient
            self._live.stop()
            self._live = None

    def _draw(self) -> RenderableType:
        with self._lock:
            self._frame += 1
            lines = tree.draw(
                self._view,
                now=self._session.now(),
                width=max(20, self._console.width - 1),
                rows_max=max(3, min(tree.ROWS_MAX, self._console.height - tree.ANSWER_LINES_MAX - 4)),
                glyphs=self._glyphs,
                frame=self._frame,
            )
            return Group(*lines)


@dataclass(slots=True)
class Follower:
    """Follows one plan for a person: shows it, asks what it waits for, and on Ctrl-C whether to cancel it."""

    session: Session
    client: PlanClient
    plan_id: str
    after: int = 0

    def run(self) -> Exit:
        """Follow to the end of the plan and print its answer, or until the person leaves it."""
        asked = False
        shown = self.after

        while True:
            view = View(self.plan_id)
            lock = threading.Lock()
            screen: Screen = (
                TreeScreen(self.session, view, lock)
                if self.session.live
                else LineScreen(self.session, view, after=shown)
            )

            try:
                self._watch(view, screen, lock)
                screen.close()
                return self._finish(view.fold.snapshot())
            except KeyboardInterrupt:
                screen.pause()
                shown = max(shown, view.fold.sequence)

                if asked or not self.session.interactive or not self._wants_cancel():
                    return leave(self.session, self.plan_id)

                asked = True
                self.client.cancel(self.plan_id, "cancelled by Ctrl-C")
            except CompactedError:
                screen.close()
                return self._finish(self.client.get(self.plan_id))
            finally:
                screen.close()

    def _watch(self, view: View, screen: Screen, lock: threading.Lock) -> None:
        questions = _Questions(self.session, self.client, self.plan_id)

        for event in self.client.watch(self.plan_id):
            with lock:
                view.apply(event)

            screen.show(event)

            if isinstance(event.fact, StepWaiting) and (found := questions.due(event)):
                screen.pause()
                questions.ask(found)

        if not view.fold.state.terminal:
            raise UnavailableError(f"The watch of plan {self.plan_id} ended before the plan did; watch it again.")

    def _wants_cancel(self) -> bool:
        try:
            answer = self.session.ask(f"\nCancel plan {self.plan_id}, or leave it running? [c/L] ")
        except KeyboardInterrupt:
            return False

        return answer.lower() in {"c", "cancel", "y", "yes"}

    def _finish(self, plan: Plan) -> Exit:
        """Say how it ended, and print the answer, last and on stdout."""
        if not plan.state.terminal:
            raise UnavailableError(f"The watch of plan {plan.id} ended before the plan did; watch it again.")

        if plan.state is PlanState.FAILED:
            first, *rest = failure_lines(plan.failure)
            self.session.tell("\n".join([f"The plan failed: {first}", *rest]))

        elif plan.state is PlanState.CANCELLED:
            self.session.tell("The plan was cancelled.")

        if plan.answer:
            self.session.result(plan.answer)
        elif plan.output is not None:
            self.session.result(wire.canonical_json(plan.output))

        return status_of_plan(plan.state)


class _Questions:
    """What a plan waits for, asked once each."""

    def __init__(self, session: Session, client: PlanClient, plan_id: str) -> None:
        self._session = session
        self._client = client
        self._plan_id = plan_id
        self._known = 0  # up to here all waits that are still open are in _open
        self._open: dict[int, waits.Wait] = {}

    def due(self, event: Event) -> waits.Wait | None:
        """Give what is to be asked now that ``event`` came: what waited before and does not any more is past."""
        if event.sequence > self._known:
            self._look(event)

        return self._open.pop(event.sequence, None)

    def _look(self, event: Event) -> None:
        """Find all waits that are open, at once: a plan may have thousands, and each has an event that is still to come."""
        try:
            plan = self._client.get(self._plan_id)
            steps, sequence = plan.steps, plan.sequence
        except LimitError:  # larger than one answer may be
            steps, sequence = tuple(self._client.list_steps(self._plan_id, states=[StepState.WAITING])), event.sequence

        self._open = {wait.waiting.sequence: wait for wait in waits.waits_of(self._plan_id, steps)}
        self._known = max(sequence, event.sequence)

    def ask(self, wait: waits.Wait) -> None:
        """Ask for the decision, or tell the commands that make it if there is nobody to ask."""
        for line in waits.question(wait):
            self._session.tell(line)

        if self._session.interactive:
            if self._answered(wait):
                return

            self._session.tell("It is left to wait, and this command goes on following. To decide elsewhere:")

        self._session.tell("\n".join(waits.commands(wait, self._session.target)))

    def _decision(self, wait: waits.Wait) -> str | None:
        """Ask until the answer is one: a decision, or None to leave it."""
        choices = " / ".join(f"[{word[0]}]{word[1:]}" for word in wait.decisions)
        meant = {word[:length]: word for word in wait.decisions for length in range(1, len(word) + 1)}
        meant |= {"n": "reject", "no": "reject"}

        if len(wait.decisions) > 1:
            meant |= {"y": wait.decisions[0], "yes": wait.decisions[0]}

        for _ in range(_ASKED_MAX):
            answer = self._session.ask(f"{choices} / [L]eave it waiting? ").strip().lower()

            if answer in {"", *("leave"[:length] for length in range(1, 6))}:
                return None

            if answer in meant:
                return meant[answer]

            self._session.tell(f"{answer[:40]!r} is none of these.")

        return None

    def _answered(self, wait: waits.Wait) -> bool:
        word = self._decision(wait)

        if word is None:
            return False

        try:
            self._client.resolve(self._plan_id, wait.step_id, waits.decision(word), wait_sequence=wait.waiting.sequence)
        except UnavailableError:
            raise
        except AutoglmError as error:  # somebody else was quicker, or it is over
            for line in error_lines(error):
                self._session.tell(line)

        return True


def leave(session: Session, plan_id: str, *, after: int = 0, flags: Iterable[str] = ()) -> Exit:
    """Say how to come back to a plan that is left running."""
    words = ["watch", plan_id, *(["--after", str(after)] if after else []), *flags]
    session.tell(f"The plan goes on. To see it again: {waits.command(session.target, *words)}")
    return Exit.INTERRUPTED


def record(session: Session, client: PlanClient, plan_id: str, *, after: int = 0, ephemeral: bool = False) -> Exit:
    """Print each event as a line of JSON, to the end of the plan; ask nothing."""
    state = PlanState.UNSPECIFIED

    try:
        with Interrupts() as interrupts:
            for event in client.watch(plan_id, after_sequence=after, durable_only=not ephemeral):
                with interrupts.held():
                    session.record(wire.to_json(event))

                    if not event.ephemeral:
                        after = event.sequence
                        state = _ENDS.get(type(event.fact), state)

    except KeyboardInterrupt:
        flags = ["--json", *(["--ephemeral"] if ephemeral else [])]
        return leave(session, plan_id, after=after, flags=flags)

    if not state.terminal:
        state = client.get(plan_id).state  # nothing came after `after`: it had ended

    return status_of_plan(state)
