"""The model planner: each round is one request to a language model, whose steps start while it still writes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.util import find_spec

from autoglm.model import Failure, PlanOptions, Usage, Violation
from autoglm.wire import canonical_json
from autoglm_server.planner.llm import failures
from autoglm_server.planner.llm.backend import Ask, Backend, Reply, make_backend
from autoglm_server.planner.llm.models import (
    EXTRA_LINE,
    Access,
    ModelName,
    ModelNameError,
    Profile,
    find_access,
    parse_model,
)
from autoglm_server.planner.llm.options import LlmOptions
from autoglm_server.planner.llm.prompt import Prompt, Room, write_prompt
from autoglm_server.planner.llm.reading import Reading
from autoglm_server.planner.planner import Note, PlannerError, RoundItem, RoundView, UsageMeter

log = logging.getLogger(__name__)

BACKENDS_MAX = 16
"""How many models are kept open; the one that was not asked for longest goes first."""
OUTPUT_TOKENS_MIN = 256
"""The least a model is given to write, however little of the budget is left."""
DEBUG_TEXT_MAX = 4_000_000


def installed() -> bool:
    """Whether what a model needs is installed; nothing of it is imported."""
    return find_spec("pydantic_ai") is not None


class LlmPlanner:
    """Plans with a language model. Imports what that takes when the first round is made."""

    def __init__(self, options: LlmOptions, environment: Mapping[str, str] | None = None) -> None:
        """Take the settings, and the environment in which keys are looked for (the process's own by default)."""
        self._options = options
        self._environment = os.environ if environment is None else environment
        self._backends: OrderedDict[tuple[str, str, str], Backend] = OrderedDict()
        self._making = asyncio.Lock()

    @property
    def name(self) -> str:
        """What ``PlanOptions.planner`` calls it."""
        return "llm"

    @property
    def revises(self) -> bool:
        """It can find another way when a step failed."""
        return True

    def check(self, options: PlanOptions) -> list[Violation]:
        """Say what keeps a plan with these options from being planned, before it is created."""
        try:
            self._reach(options.model)
        except ModelNameError as error:
            return [Violation("options.model", str(error), "UNKNOWN_MODEL")]

        if not installed():
            return [Violation("options.planner", f"models need {EXTRA_LINE}", "PLANNER_UNAVAILABLE")]

        return []

    def describe(self) -> str:
        """Say which model a plan gets that names none, and where its key comes from.

        Raises:
            ModelNameError: it cannot be used; the message says what to set.
        """
        name, access = self._reach("")
        source = f"the key in {access.key_source}" if access.key_source else "no key"
        return f"{name} at {access.base_url}, {source}"

    def address(self) -> str:
        """Give where the model of :meth:`describe` is served; raises as it does."""
        return self._reach("")[1].base_url

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        """Ask the model once, and give its steps as each is complete, or its answer as it grows.

        Raises:
            PlannerError: the model could not be asked, refused, or broke off; as data.
        """
        backend, ask, prompt = await self._prepare(view)

        for note in prompt.notes:
            yield Note(f"{note}\n")

        reading, reply = Reading(view.steps_left), Reply()
        yield UsageMeter(lambda: reply.usage)
        written: list[str] = []
        error: PlannerError | None = None

        try:
            async with aclosing(backend.ask(ask, reply)) as deltas:
                async for delta in deltas:
                    if self._options.debug_file is not None:
                        written.append(delta.text)

                    for item in reading.feed(delta):
                        yield item

                    if reading.enough:
                        break
        except PlannerError as failed:
            error = None if reading.complete else failed
        finally:
            await self._debug(view, backend, prompt, written, reply)

        yield reply.usage

        if error is not None:
            raise PlannerError(_marked(error.failure, reply)) from None

        items, failure = reading.finish(reply, str(backend.name), ask.max_output_tokens)

        for item in items:
            yield item

        if failure is not None:
            raise PlannerError(_marked(failure, reply))

        if reply.estimated:
            yield Note(f"how many tokens {backend.name} used is estimated: it did not say\n")

    async def warm(self) -> None:
        """Import what the configured model takes, beside the loop, so that the first round need not wait for it.

        Whatever fails then is told by the first round.
        """
        try:
            await self._backend(*self._reach(""))
        except (ModelNameError, PlannerError) as error:
            log.warning("the model cannot be made ready: %s", error)

    async def close(self) -> None:
        """Close the connections to all models."""
        while self._backends:
            _, backend = self._backends.popitem()
            await backend.close()

    # --- which model

    async def backend(self, model: str) -> Backend:
        """Give a model, made ready to be asked; an empty name is the configured one.

        Raises:
            PlannerError: it may not be asked, or cannot be reached.
        """
        try:
            name, access = self._reach(model)
        except ModelNameError as error:
            raise PlannerError(failures.unavailable(str(error))) from None

        return await self._backend(name, access)

    def _reach(self, wanted: str) -> tuple[ModelName, Access]:
        """Find the model a plan wants, and how it is reached.

        A plan may name a model, never an address: that would send the key, and what the tools gave, to anybody.

        Raises:
            ModelNameError: it may not, or it cannot be reached.
        """
        options = self._options
        own = parse_model(options.model) if options.model else None

        if not wanted and own is None:
            raise ModelNameError("there is no model: set planner.model, or options.model, to provider:name")

        name = own if own is not None and wanted in ("", options.model) else None

        if name is None:
            name = self._named_by_plan(wanted, own)

        if own is not None and name.provider == own.provider:
            base_url = own.base_url or options.base_url
            access = find_access(
                name,
                self._environment,
                base_url=base_url,
                key_variable=options.key_variable,
                key_file=options.key_file,
            )
        else:
            access = find_access(name, self._environment)

        return name, access

    def _named_by_plan(self, wanted: str, own: ModelName | None) -> ModelName:
        name = parse_model(wanted, own.provider if own is not None else "")

        if name.base_url:
            raise ModelNameError(
                "a plan may not say where a model is served; the server does: set its planner.model (AUTOGLM_PLANNER__MODEL)"
                " to this, and give the plan the planner llm alone"
            )

        allowed = self._options.models

        if allowed and not any(fnmatchcase(str(name), glob) for glob in allowed):
            raise ModelNameError(f"model {name} is not among planner.models {list(allowed)}")

        return name

    async def _prepare(self, view: RoundView) -> tuple[Backend, Ask, Prompt]:
        options = self._options
        wanted = view.plan.options.model if view.plan.options is not None else ""

        backend = await self.backend(wanted)
        profile = options.profile or backend.name.spec.profile
        room = Room(options.max_prompt_tokens, options.output_chars)
        prompt = write_prompt(view, room, fenced=profile is Profile.TEXT)
        ask = Ask(
            system=prompt.system,
            user=prompt.user,
            schema=prompt.schema,
            profile=profile,
            max_output_tokens=_output_tokens(view, options.max_output_tokens),
            temperature=options.temperature,
            stall_timeout=options.stall_timeout.total_seconds(),
        )
        return backend, ask, prompt

    async def _backend(self, name: ModelName, access: Access) -> Backend:
        """Give the model, made anew when its address or key has changed."""
        place = (str(name), access.base_url, access.key)

        async with self._making:
            backend = self._backends.get(place)

            if backend is None:
                # The libraries take a second or two to import; the loop goes on meanwhile.
                backend = await asyncio.to_thread(make_backend, name, access)
                self._backends[place] = backend

            self._backends.move_to_end(place)

            if len(self._backends) > BACKENDS_MAX:
                # Not closed: a round of another plan may be using it. Its connections go with it.
                self._backends.popitem(last=False)

        return backend

    # --- debugging

    async def _debug(
        self, view: RoundView, backend: Backend, prompt: Prompt, written: Sequence[str], reply: Reply
    ) -> None:
        """Write the whole exchange to the debug file, one JSON object a line. It holds prompts, and never a key."""
        if self._options.debug_file is None:
            return

        line = canonical_json(
            {
                "plan": view.plan.id,
                "round": view.round,
                "attempt": view.attempt,
                "model": str(backend.name),
                "system": prompt.system,
                "user": prompt.user,
                "output": "".join(written)[:DEBUG_TEXT_MAX].encode("utf-8", "replace").decode(),
                "finish_reason": reply.finish_reason,
            }
        )

        try:
            await asyncio.to_thread(self._append, f"{line}\n")
        except OSError as error:
            log.warning("planner.debug_file cannot be written: %s", error.strerror, extra={"plan_id": view.plan.id})

    def _append(self, line: str) -> None:
        file = self._options.debug_file

        if file is None:
            return

        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        with os.fdopen(descriptor, "a", encoding="utf-8") as opened:
            opened.write(line)


def _marked(failure: Failure, reply: Reply) -> Failure:
    """Say with a failure that its round's usage is an estimate, if it is."""
    return replace(failure, metadata={**failure.metadata, "usage": "estimated"}) if reply.estimated else failure


def _output_tokens(view: RoundView, most: int) -> int:
    """Give how much the model may write: no more than what is left of the budget."""
    options = view.plan.options
    budget = options.budget.max_tokens if options is not None and options.budget is not None else None

    if budget is None:
        return most

    used = view.plan.usage or Usage()
    return min(most, max(OUTPUT_TOKENS_MIN, budget - used.input_tokens - used.output_tokens))
