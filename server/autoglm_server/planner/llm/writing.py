"""Plain text by a model: the same models, keys, addresses, limits and failures as when it plans."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from autoglm._dataclasses import dataclass
from autoglm.model import ErrorReason, JsonObject, Usage
from autoglm_server.planner.llm import failures
from autoglm_server.planner.llm.backend import Ask, Reply
from autoglm_server.planner.llm.models import ModelNameError, Profile
from autoglm_server.planner.llm.options import LlmOptions
from autoglm_server.planner.llm.planner import LlmPlanner
from autoglm_server.planner.planner import PlannerError


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote. ``complete``: it came to its end, and not to the limit of tokens."""

    text: str
    model: str
    complete: bool


class Writer:
    """Writes text with the models that the settings allow."""

    def __init__(self, options: LlmOptions, planner: LlmPlanner) -> None:
        """Reach models as ``planner`` does."""
        self._options = options
        self._planner = planner

    @property
    def output_tokens(self) -> int:
        """The most tokens that one text may have."""
        return self._options.max_output_tokens

    async def write(
        self,
        *,
        system: str,
        prompt: str,
        model: str,
        max_tokens: int,
        schema: JsonObject | None,
        on_text: Callable[[str], None],
        on_usage: Callable[[Usage], None],
    ) -> Written:
        """Ask once; ``on_text`` is told each piece as it comes, ``on_usage`` what it cost, however it ended.

        With ``schema``, JSON is asked for, as the provider can.

        Raises:
            PlannerError: the model could not be asked, refused, or broke off; as data.
        """
        backend = await self._planner.backend(model)
        native = backend.name.spec.profile if self._options.profile is None else self._options.profile
        ask = Ask(
            system=system,
            user=prompt,
            schema=schema or {},
            profile=Profile.JSON_SCHEMA if schema and native is Profile.JSON_SCHEMA else Profile.TEXT,
            max_output_tokens=min(max_tokens, self.output_tokens),
            temperature=self._options.temperature,
            stall_timeout=self._options.stall_timeout.total_seconds(),
        )
        self._check(ask, str(backend.name))
        reply, pieces = Reply(), []
        try:
            async with aclosing(backend.ask(ask, reply)) as deltas:
                async for delta in deltas:
                    pieces.append(delta.text)
                    on_text(delta.text)
        finally:
            on_usage(reply.usage)

        self._check_end(reply, str(backend.name), "".join(pieces))
        return Written("".join(pieces), str(backend.name), reply.finish_reason != "length")

    def check(self) -> str:
        """Say why the configured model cannot be asked; nothing if it can."""
        try:
            self._planner.describe()
        except ModelNameError as error:
            return str(error)

        return ""

    async def close(self) -> None:
        """Close the connections to all models."""
        await self._planner.close()

    def _check(self, ask: Ask, model: str) -> None:
        if ask.tokens > self._options.max_prompt_tokens:
            most = self._options.max_prompt_tokens
            message = f"the prompt for {model} has about {ask.tokens} tokens; planner.max_prompt_tokens allows {most}"
            raise PlannerError(failures.failed(message))

    def _check_end(self, reply: Reply, model: str, text: str) -> None:
        if reply.finish_reason == "content_filter":
            said = failures.masked(reply.refusal)[: failures.TOLD_CHARS_MAX]
            raise PlannerError(failures.failed(f"{model} refused to write this" + (f": {said}" if said else "")))

        if reply.finish_reason in ("", "error"):
            raise PlannerError(failures.failed(f"{model} broke off in the middle", retryable=True))

        if not text.strip():
            message = f"{model} wrote nothing"
            raise PlannerError(failures.failed(message, ErrorReason.PLANNER_EMPTY, retryable=True))
