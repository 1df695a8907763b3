"""One script for both clients: what one answers is awaited if it must be."""

from __future__ import annotations

import inspect
from random import Random
from typing import Any

import autoglm


class Hasty(Random):
    """Makes the shortest pauses, nearly."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 20


class Both:
    """A client of one kind, used through ``do`` and ``collect``."""

    def __init__(self, asynchronous: bool, address: str | None, **arguments: Any) -> None:
        self.asynchronous = asynchronous
        kind: Any = autoglm.AsyncClient if asynchronous else autoglm.Client
        self.client: Any = kind(address, **arguments)
        self.client._link.random = Hasty()

    async def do(self, value: Any) -> Any:
        """Await what is awaitable; the synchronous client has answered by now."""
        return await value if inspect.isawaitable(value) else value

    async def collect(self, iterable: Any, most: int | None = None) -> list[Any]:
        """Iterate, up to ``most`` items."""
        items: list[Any] = []

        if hasattr(iterable, "__aiter__"):
            async for item in iterable:
                items.append(item)

                if len(items) == most:
                    break
        else:
            for item in iterable:
                items.append(item)

                if len(items) == most:
                    break

        return items
