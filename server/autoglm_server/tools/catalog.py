"""The catalog: every tool of every provider by its name, and the one way to check and call them.

A provider's tool ``add`` is ``calc.add`` when the configuration calls the provider ``calc``, and ``add`` when it is the
server's own. Approval is not the catalog's business.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import logging
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from autoglm._dataclasses import dataclass
from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, JsonObject, Tool, ToolResult, Violation
from autoglm.tool import tool_digest
from autoglm.wire import carried, digest
from autoglm_server.tools.invocation import Checked, invoke
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.patience import Patience, is_not_made
from autoglm_server.tools.references import Path, invalid_arguments
from autoglm_server.tools.secrets import SCHEME, Secrets
from autoglm_server.tools.tool import Invocation, Provider, ToolCallError
from autoglm_server.tools.validation import Schema, SchemaError, nearest
from autoglm_server.tools.wrappers import Call, Wrappers

_log = logging.getLogger(__name__)


class _Source:
    """A provider, and how many calls of its tools are under way."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.listed: Sequence[Tool] | None = None
        """The list that ``entries`` and ``refused`` were made of."""
        self.seen: Sequence[Tool] | None = None
        """The list that the catalog's own index was made of."""
        self.entries: list[_Entry] = []
        self.refused: dict[str, str] = {}
        self.calls = 0
        self.quiet = asyncio.Event()
        """Set whenever the last call under way has ended."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tool in the catalog: its provider, as callers know it, with its schemas compiled, and how it is called."""

    source: _Source
    tool: Tool
    checked: Checked
    call: Call


class Resolved(NamedTuple):
    """What a check of resolved arguments has found."""

    text: str
    """Their canonical text."""
    digest: str
    """Of the tool as it is now."""
    exact: bool
    """Whether they are right as they are, or only once the call has widened them."""


class Catalog:
    """All tools of all providers."""

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        limits: ToolLimits | None = None,
        wrappers: Wrappers | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        """Make a catalog of ``providers``, with what ``wrappers`` put around tools; :meth:`start` starts them.

        ``secrets`` are what ``secret://NAME`` stands for in arguments.

        Raises:
            ValueError: two providers have the same name.
        """
        _check_names(providers)
        self.limits = limits or ToolLimits()
        self.refused: dict[str, str] = {}
        """Tools that are not offered, and why: a schema that cannot be used, a name that is taken."""
        self._sources = tuple(_Source(provider) for provider in providers)
        self._asked = self._sources
        """Of the sources, those whose tools may have changed; the others are asked once."""
        self._retired: list[_Source] = []
        self._wrappers = wrappers or Wrappers()
        self._secrets = secrets or Secrets()
        self._entries: dict[str, _Entry] = {}
        self._checked: dict[str, Checked] = {}
        self._digests: dict[tuple[str, Effect, str, str], str] = {}
        self._digest = ""
        self._started = False

    async def start(self) -> None:
        """Start the providers, in order. When one fails, those before it are stopped and its error is raised."""
        await _start([source.provider for source in self._sources])
        self._started = True
        self._current()

    async def stop(self) -> None:
        """Stop the providers, the last first."""
        async with AsyncExitStack() as stopping:
            for source in (*self._retired, *self._sources) if self._started else ():
                stopping.push_async_callback(source.provider.stop)

            self._started = False
            self._retired.clear()

    async def replace(self, providers: Sequence[Provider], *, wrappers: Wrappers | None = None) -> None:
        """Offer the tools of ``providers`` from now on, and start those that are new; nothing changes when one fails.

        Calls under way go on, also of providers that are no longer there: :meth:`retire` lets go of these.

        Raises:
            ValueError: two providers have the same name.
        """
        _check_names(providers)
        before = {id(source.provider): source for source in self._sources}
        await _start([provider for provider in providers if id(provider) not in before])
        kept = {id(provider) for provider in providers}
        self._sources = tuple(before.get(id(provider), _Source(provider)) for provider in providers)
        self._retired += [source for key, source in before.items() if key not in kept]
        self._wrappers = wrappers or self._wrappers
        if wrappers is not None:
            for source in self._sources:
                source.listed = None

        self._index()

    async def retire(self) -> None:
        """Stop each provider that was replaced, when the last call of its tools has ended."""
        async with asyncio.TaskGroup() as ending:
            for source in self._retired:
                ending.create_task(self._retire(source))

    async def _retire(self, source: _Source) -> None:
        while source.calls:
            source.quiet.clear()
            await source.quiet.wait()

        if source in self._retired:
            self._retired.remove(source)
            await source.provider.stop()

    @property
    def digest(self) -> str:
        """The digest of all tools: of their names and digests."""
        self._current()
        return self._digest

    @property
    def offer(self) -> object:
        """What stands for all tools as they are now: another object when one of them is another one."""
        return self._current()

    def get(self, name: str) -> Tool | None:
        """Give the tool called ``name``."""
        entry = self._current().get(name)
        return entry.tool if entry else None

    def tools(self, allowed: Sequence[str] = ()) -> list[Tool]:
        """Give the tools whose names fit one of the globs ``allowed``, or all, by name."""
        entries = self._current()
        return [
            entries[name].tool
            for name in sorted(entries)
            if not allowed or any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
        ]

    def nearest(self, name: str) -> list[str]:
        """Give up to three names of tools that ``name`` may have meant, the nearest first."""
        return nearest(name, list(self._current()))

    def check_written(self, tool_name: str, arguments: JsonObject, *, field: str) -> list[Violation]:
        """Give every fault of arguments as a step writes them, with the names of their places under ``field``.

        They must be JSON that can be carried. What only an output can decide is left out; whether the references
        themselves can be read is told by ``compile_references``. A tool that is not there is a fault of its own.
        """
        entry = self._current().get(tool_name)
        if entry is None:
            return [Violation(field, self._missing(tool_name), ErrorReason.TOOL_NOT_FOUND.name)]

        schema = entry.checked.input
        secrets, faults = self._secrets.check(tool_name, arguments, schema.document, field)
        return faults + schema.check_written(arguments, field, left_open=secrets)

    def fit_as_written(self, tool_name: str, arguments: JsonObject, text: str) -> bool:
        """Whether arguments whose canonical text is ``text`` are right as they are written, with nothing to be filled in."""
        entry = self._current().get(tool_name)
        return entry is not None and "${" not in text and SCHEME not in text and entry.checked.input.fits(arguments)

    def checked(self, tool_name: str, arguments: JsonObject) -> Resolved:
        """Check resolved arguments in full.

        What is not there cannot check anything: the digest is empty, and the call will say so.

        Raises:
            ToolCallError: INVALID_ARGUMENTS, with every violation.
        """
        entry = self._current().get(tool_name)
        limits = self.limits
        _, text, faults = carried(arguments, "arguments", depth_max=limits.depth, bytes_max=limits.arguments_bytes)
        if entry is None and not faults:
            return Resolved(text, "", exact=False)

        exact = False
        if entry is not None and not faults:
            schema = entry.checked.input
            secrets: Sequence[Path] = ()
            if SCHEME in text:
                secrets, faults = self._secrets.check(tool_name, arguments, schema.document, "arguments")

            fitted, unfit = schema.fit(arguments, "arguments", left_open=secrets)
            faults += unfit
            exact = fitted is arguments

        if faults or entry is None:
            raise ToolCallError(invalid_arguments(faults))

        return Resolved(text, entry.tool.digest, exact)

    async def call(self, invocation: Invocation, *, tool_digest: str = "") -> ToolResult:
        """Make a call: check the arguments in full, call the provider within the time limit, check the output.

        A provider that is away is waited for, as long as ``limits.provider_wait`` says. Cancelling the awaiting task asks
        the call to stop; a second time gives it up (see :class:`Provider`).

        Raises:
            ToolCallError: with the failure TOOL_UNAVAILABLE, TOOL_CHANGED (it is no longer ``tool_digest``),
                INVALID_ARGUMENTS, STEP_TIMEOUT, TOOL_ERROR, INVALID_OUTPUT, OUTPUT_TOO_LARGE, or the tool's own.
            AbandonedError: the call was told to stop and could not be.
        """
        entry = self._current().get(invocation.tool)
        if entry is None or not entry.tool.available:
            entry, invocation = await self._awaited(invocation)

        if tool_digest and tool_digest != entry.tool.digest:
            told = f"the tool {invocation.tool!r} is no longer the one this call was made for"
            raise ToolCallError(Failure(ErrorReason.TOOL_CHANGED.name, DOMAIN, told))

        source = entry.source
        source.calls += 1
        try:
            return await entry.call(invocation)
        finally:
            source.calls -= 1
            if not source.calls:
                source.quiet.set()

    async def _awaited(self, invocation: Invocation) -> tuple[_Entry, Invocation]:
        """Wait for a tool whose provider is away, or has yet to say what it offers; gives it, and what time is left.

        Raises:
            ToolCallError: TOOL_UNAVAILABLE, it did not come.
        """
        name = invocation.tool

        def look() -> _Entry | None:
            entry = self._current().get(name)
            return entry if entry is not None and entry.tool.available else None

        known = name in self._entries or any(
            source.provider.name and name.startswith(f"{source.provider.name}.") for source in self._sources
        )
        patience = Patience(invocation, self.limits.provider_wait if known else 0.0)
        if (found := await patience.find(look)) is not None:
            return found, patience.left()

        away = f"the provider of {name!r} cannot be reached"
        told = away if name in self._entries else self._missing(name)
        raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True))

    def _missing(self, name: str) -> str:
        near = self.nearest(name)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"there is no tool {name!r}{hint}"

    def _current(self) -> dict[str, _Entry]:
        """Give the entries, made anew when a provider's list is another one than before."""
        for source in self._asked:
            if source.provider.tools() is not source.seen:
                self._index()
                break

        return self._entries

    def _index(self) -> None:
        """Make the entries anew; of a provider whose list is the same as before, they are."""
        entries: dict[str, _Entry] = {}
        refused: dict[str, str] = {}

        for source in self._sources:
            tools = source.seen = source.provider.tools()
            if source.listed is not tools:
                self._read(source, tools)

            refused |= source.refused
            for entry in source.entries:
                name = entry.tool.name
                if name in entries:
                    owner = entries[name].source.provider.name or "the server"
                    refused[name] = f"another tool of {owner!r} has this name"
                else:
                    entries[name] = entry

        for name in refused.keys() - self.refused.keys():
            _log.error("the tool %s is not offered: %s", name, refused[name])

        self._asked = tuple(source for source in self._sources if not getattr(source.provider, "unchanging", False))
        self._entries, self.refused = entries, refused
        self._checked = {entry.tool.digest: entry.checked for entry in entries.values()}
        self._digests = {_digested(entry.tool): entry.tool.digest for entry in entries.values()}
        self._digest = digest([[name, entries[name].tool.digest] for name in sorted(entries)])

    def _read(self, source: _Source, tools: Sequence[Tool]) -> None:
        provider = source.provider
        source.listed, source.entries, source.refused = tools, [], {}
        for own in tools:
            name = f"{provider.name}.{own.name}" if provider.name else own.name
            try:
                tool, checks = self._prepare(dataclasses.replace(own, name=name, provider=provider.name))
            except ValueError as error:
                source.refused[name] = str(error)
            else:
                self._checked[tool.digest] = checks
                call = self._wrappers.around(tool, self._caller(provider, own.name, checks))
                source.entries.append(_Entry(source, tool, checks, call))

    def _caller(self, provider: Provider, own_name: str, checked: Checked) -> Call:
        limits = self.limits
        secrets = self._secrets

        def made(invocation: Invocation) -> Awaitable[ToolResult]:
            return invoke(provider, own_name, checked, invocation, limits)

        async def awaited(invocation: Invocation) -> ToolResult:
            try:
                return await made(invocation)
            except ToolCallError as error:
                if not is_not_made(error.failure):
                    raise

            return await Patience(invocation, limits.provider_wait).make(made)

        # Of the server's own tools it is not a provider that is away, but whom they talk to.
        resolved = awaited if provider.name and limits.provider_wait else made

        def call(invocation: Invocation) -> Awaitable[ToolResult]:
            if invocation.checked == checked.digest and secrets.none:
                return resolved(invocation)

            return secrets.call(invocation, checked.input.document, resolved)

        return call

    def _prepare(self, tool: Tool) -> tuple[Tool, Checked]:
        key = _digested(tool)
        tool = self._wrappers.told(dataclasses.replace(tool, digest=self._digests.get(key) or tool_digest(tool)))
        self._digests[key] = tool.digest
        checks = self._checked.get(tool.digest)
        if checks is None:
            bytes_max = self.limits.schema_bytes
            checks = Checked(
                _compiled("input", tool.input_schema or '{"type":"object"}', bytes_max),
                _compiled("output", tool.output_schema, bytes_max) if tool.output_schema else None,
                tool.effect,
                tool.digest,
            )

        return tool, checks


async def _start(providers: Sequence[Provider]) -> None:
    """Start providers, in order. When one fails, those before it are stopped and its error is raised."""
    async with AsyncExitStack() as started:
        for provider in providers:
            await provider.start()
            started.push_async_callback(provider.stop)

        started.pop_all()


def _check_names(providers: Sequence[Provider]) -> None:
    names = [provider.name for provider in providers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two providers are called {twice.pop()!r}; give each its own name")


def _digested(tool: Tool) -> tuple[str, Effect, str, str]:
    """Give all that a tool's digest depends on."""
    return tool.name, tool.effect, tool.input_schema, tool.output_schema


def _compiled(which: str, text: str, bytes_max: int) -> Schema:
    try:
        return Schema(text, bytes_max=bytes_max)
    except SchemaError as error:
        raise SchemaError(f"its {which} schema cannot be used: {error}") from None
