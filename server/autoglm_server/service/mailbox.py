"""What a call reports, until its caller has read it: the last progress and the text so far, never a queue."""

from __future__ import annotations

import asyncio
from typing import Final

from autoglm.model import ToolProgress

TEXT_MAX: Final = 64 << 10
"""Characters of text that wait for a caller; of what a slow one has not read, the oldest is left out."""


class Mailbox:
    """One place: a newer progress replaces the older one, but for its text, which is added. All on the loop."""

    def __init__(self) -> None:
        """Begin empty."""
        self._held: ToolProgress | None = None
        self._closed = False
        self._news = asyncio.Event()

    def put(self, progress: ToolProgress) -> None:
        """Leave a progress. Never blocks."""
        if self._closed:
            return

        text = (self._held.text if self._held else "") + progress.text
        self._held = ToolProgress(progress.fraction, progress.message, progress.data, text[-TEXT_MAX:])
        self._news.set()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._closed = True
        self._news.set()

    async def next(self) -> ToolProgress | None:
        """Take what is there, waiting for it; None when all is taken and nothing more comes."""
        await self._news.wait()
        held, self._held = self._held, None

        if not self._closed:
            self._news.clear()

        return held
