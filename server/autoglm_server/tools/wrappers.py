"""What stands around a tool's calls, by the configuration: a cache, redaction, a rate, a bound on calls at once.

From the outside in: cache, redaction, rate, concurrency, then the call with its own checks and time limit. So what the
cache gives costs neither rate nor place and was redacted once; and what redaction takes out had passed the tool's schema
before. A time limit and an approval, which the configuration sets as well, are facts of the tool (:meth:`Wrappers.told`):
whoever makes the call keeps to them, the approval before anything here. What waits here waits within the call's time limit.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, Tool, ToolProgress, ToolResult
from autoglm.wire import canonical_json, digest_text, parse_json
from autoglm_server.settings import ToolSettings
from autoglm_server.tools.redaction import Redaction
from autoglm_server.tools.tool import PLAN_RUN, Invocation, ToolCallError

_log = logging.getLogger(__name__)

Call = Callable[[Invocation], Awaitable[ToolResult]]
"""Makes a call; raises as :meth:`Catalog.call`."""
Seconds = Callable[[], float]
"""A monotonic clock."""

_ENTRY_BYTES: Final = 512
"""What an entry of a cache costs besides its text."""


class Wrapper(Protocol):
    """Something that stands around a call."""

    async def call(self, invocation: Invocation, proceed: Call) -> ToolResult:
        """Make the call by ``proceed``, or answer or refuse it without."""
        ...


class Store:
    """Results by key: bounded in bytes and in age, the least recently used go first."""

    def __init__(self, ttl: float, bytes_max: int, now: Seconds = time.monotonic) -> None:
        """Keep results for ``ttl`` seconds, at most ``bytes_max`` of them."""
        self._ttl = ttl
        self._bytes_max = bytes_max
        self._now = now
        self._texts: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self.bytes = 0
        """What is held, in bytes."""

    def get(self, key: str) -> str | None:
        """Give the JSON text under ``key``, if it is there and not too old."""
        found = self._texts.get(key)
        if found is None:
            return None

        if self._now() - found[0] >= self._ttl:
            self._remove(key)
            return None

        self._texts.move_to_end(key)
        return found[1]

    def put(self, key: str, text: str) -> None:
        """Keep a JSON text, if it fits."""
        if key in self._texts:
            self._remove(key)

        size = len(text.encode()) + _ENTRY_BYTES
        if size > self._bytes_max:
            return

        self._texts[key] = (self._now(), text)
        self.bytes += size
        while self.bytes > self._bytes_max:
            self._remove(next(iter(self._texts)))

    def _remove(self, key: str) -> None:
        self.bytes -= len(self._texts.pop(key)[1].encode()) + _ENTRY_BYTES


class Cache:
    """Answers a READ_ONLY call as the same one was answered before, for the same principal.

    Same means the tool's digest and the canonical text of the arguments. Only results are kept, never failures, nor results
    with artifacts; what a model's use of a kept one cost is not told again.
    """

    def __init__(self, store: Store, tool_digest: str) -> None:
        """Keep results of the tool with ``tool_digest`` in ``store``, which may be shared."""
        self._store = store
        self._digest = tool_digest

    async def call(self, invocation: Invocation, proceed: Call) -> ToolResult:
        """Answer from the store, or call and keep the result."""
        try:
            arguments = canonical_json(invocation.arguments)
        except (ValueError, TypeError):
            return await proceed(invocation)  # which says what is wrong with them

        key = digest_text(f"{self._digest}\n{invocation.context.principal}\n{arguments}")
        kept = self._store.get(key)
        if kept is not None:
            invocation.report(ToolProgress(message="answered from the cache"))
            _log.debug("%s is answered from the cache", invocation.tool)
            return ToolResult(parse_json(kept))

        result = await proceed(invocation)
        if not result.artifacts:
            # As text: who is given an output may change it, and the next one must not see that.
            self._store.put(key, canonical_json(result.output))

        return result


class Redacted:
    """Takes out of outputs, progress and failures what the configuration names."""

    def __init__(self, redaction: Redaction) -> None:
        """Redact by ``redaction``."""
        self._redaction = redaction

    async def call(self, invocation: Invocation, proceed: Call) -> ToolResult:
        """Call, and redact what comes of it."""
        tell = invocation.report

        def report(progress: ToolProgress) -> None:
            tell(dataclasses.replace(progress, data=self._redaction.of_part(progress.data)))

        try:
            result = await proceed(dataclasses.replace(invocation, report=report))
        except ToolCallError as error:
            metadata = self._redaction.of_metadata(error.failure.metadata)
            raise ToolCallError(dataclasses.replace(error.failure, metadata=metadata)) from None

        return dataclasses.replace(result, output=self._redaction.of(result.output))


class RateLimit:
    """A token bucket: ``burst`` calls at once, then ``rate`` a second, in the order in which they came."""

    def __init__(self, rate: float, burst: int, now: Seconds = time.monotonic) -> None:
        """Start with a full bucket."""
        self._told = f"its rate is {rate:.3g} calls a second"
        self._every = 1 / rate
        self._tolerance = (burst - 1) / rate
        self._now = now
        self._due = float("-inf")  # when the bucket would be full again

    async def call(self, invocation: Invocation, proceed: Call) -> ToolResult:
        """Wait for a token, within the call's time limit, and call."""
        now = self._now()
        wait = max(0.0, self._due - self._tolerance - now)
        if wait >= invocation.timeout:
            left = f"it has {invocation.timeout:.3g} s"
            raise _refused(f"{invocation.tool} is called too often: its turn would come in {wait:.3g} s, {left}", wait)

        self._due = max(self._due, now) + self._every
        if wait:
            invocation.report(ToolProgress(message=f"waits {wait:.3g} s for its turn: {self._told}"))
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self._due -= self._every  # it was not used
                raise

        return await proceed(_later(invocation, self._now() - now))


class ConcurrencyLimit:
    """Lets so many calls run at once; more wait for a place, in the order in which they came."""

    def __init__(self, most: int, now: Seconds = time.monotonic) -> None:
        """Let ``most`` calls run at once."""
        self._most = most
        self._places = asyncio.Semaphore(most)
        self._now = now

    async def call(self, invocation: Invocation, proceed: Call) -> ToolResult:
        """Wait for a place, within the call's time limit, and call."""
        began = self._now()
        if self._places.locked():
            invocation.report(ToolProgress(message=f"waits for its turn: its concurrency is {self._most}"))

        try:
            async with asyncio.timeout(invocation.timeout):
                await self._places.acquire()
        except TimeoutError:
            waited = f"no place came in {invocation.timeout:.3g} s"
            raise _refused(f"{invocation.tool} may run {self._most} times at once, and does; {waited}") from None

        try:
            return await proceed(_later(invocation, self._now() - began))
        finally:
            self._places.release()


class Wrappers:
    """The wrappers of every tool: each has its own rate and places; tools matched by one entry share its cache."""

    def __init__(self, rules: Sequence[ToolSettings] = (), *, now: Seconds = time.monotonic) -> None:
        """Wrap by ``rules``: all whose glob fits hold, a later one over an earlier; what they redact adds up."""
        self._rules = tuple(rules)
        self._now = now
        self._stores = {
            index: Store(rule.cache.ttl.total_seconds(), rule.cache.bytes, now)
            for index, rule in enumerate(self._rules)
            if rule.cache is not None
        }
        self._limits: dict[str, list[Wrapper]] = {}

    def told(self, tool: Tool) -> Tool:
        """Give the tool with the time limit and the approval that the configuration sets."""
        changed: dict[str, object] = {}
        for _, rule in self._of(tool.name):
            if rule.timeout is not None:
                changed["timeout"] = rule.timeout

            if rule.requires_approval is not None:
                changed["requires_approval"] = rule.requires_approval

        return dataclasses.replace(tool, **changed) if changed else tool  # type: ignore[arg-type]

    def around(self, tool: Tool, call: Call) -> Call:
        """Give ``call`` with all that stands around it."""
        for wrapper in reversed([*self._outer(tool), *self._inner(tool.name)]):
            call = _wrapped(wrapper, call)

        return call

    def _of(self, name: str) -> Iterable[tuple[int, ToolSettings]]:
        return [pair for pair in enumerate(self._rules) if fnmatch.fnmatchcase(name, pair[1].match)]

    def _outer(self, tool: Tool) -> Iterable[Wrapper]:
        stores = [self._stores[index] for index, rule in self._of(tool.name) if rule.cache is not None]
        if stores and tool.effect is Effect.READ_ONLY:
            yield Cache(stores[-1], tool.digest)

        if patterns := [pattern for _, rule in self._of(tool.name) for pattern in rule.redact]:
            yield Redacted(Redaction(patterns))

    def _inner(self, name: str) -> Sequence[Wrapper]:
        """Give what keeps count: the same, however often the tool's entry is made anew."""
        if name in self._limits:
            return self._limits[name]

        rates = [rule.calls_per_second for _, rule in self._of(name) if rule.calls_per_second is not None]
        places = [rule.concurrency for _, rule in self._of(name) if rule.concurrency is not None]
        found: list[Wrapper] = [RateLimit(*rates[-1], self._now)] if rates else []
        # A sub-plan may run another one: it would wait for the place that it holds itself.
        found += [ConcurrencyLimit(places[-1], self._now)] if places and name != PLAN_RUN else []
        self._limits[name] = found
        return found


def _wrapped(wrapper: Wrapper, proceed: Call) -> Call:
    async def call(invocation: Invocation) -> ToolResult:
        return await wrapper.call(invocation, proceed)

    return call


def _later(invocation: Invocation, waited: float) -> Invocation:
    """Take what was waited off the time limit; what is left may be too short for anything, and then the call says so."""
    return dataclasses.replace(invocation, timeout=max(invocation.timeout - waited, 0.001)) if waited else invocation


def _refused(message: str, wait: float = 0.0) -> ToolCallError:
    after = timedelta(seconds=wait) if wait else None
    return ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, message, retryable=True, retry_after=after))
