"""Streams of files: pieces of a content, one at a time, as fast as the caller reads.

A reader holds one piece and one open file. One that reads nothing for a minute, or whose server drains, ends UNAVAILABLE
with the offset to go on from in the details.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from autoglm import wire
from autoglm._files import FileLimits
from autoglm.errors import InvalidRequestError, error
from autoglm.model import Artifact, ErrorReason, Plan, Violation
from autoglm.v1 import plan_service_pb2 as pb
from autoglm.v1 import tool_service_pb2
from autoglm_server.journal.artifacts import ArtifactNotFoundError, ArtifactStore
from autoglm_server.service.deadlines import Deadlines, PassedError
from autoglm_server.service.watch import WRITE_SECONDS, begin, ended
from autoglm_server.service.writing import whole
from autoglm_server.tools.artifacts import StoreSink

if TYPE_CHECKING:
    import grpc.aio

    from autoglm_server.settings import LimitSettings

    _Context = grpc.aio.ServicerContext[Any, Any]

RETRY_AFTER: Final = timedelta(seconds=1)


class Artifacts:
    """The files of plans, for callers: how many read at once is bounded."""

    def __init__(self, store: ArtifactStore, limits: LimitSettings, *, write_seconds: float = WRITE_SECONDS) -> None:
        """Read from ``store``; a message that is not taken for ``write_seconds`` ends a read."""
        self.store = store
        """Where contents are kept."""
        self._limits = limits
        self._files = FileLimits(limits.artifact, limits.call_artifacts, limits.call_artifacts_bytes)
        self._writes = Deadlines(write_seconds)
        self._draining = False
        self.open = 0
        """Reads under way now."""

    def sink(self, plan_id: str) -> StoreSink:
        """Give where the files of one call for a plan go."""
        return StoreSink(self.store, plan_id, self._files)

    def drain(self) -> None:
        """End every read at its next piece."""
        self._draining = True

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Take a place for a read.

        Raises:
            LimitError: TOO_MANY_CALLS.
        """
        most = self._limits.artifact_reads
        if self.open >= most:
            message = f"{most} files are being read from this server (limits.artifact_reads); try again"
            named = {"limit": str(most), "setting": "limits.artifact_reads"}
            raise error(ErrorReason.TOO_MANY_CALLS, message, retry_after=RETRY_AFTER, **named)

        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    async def stream(self, context: _Context, plan: Plan, digest: str, offset: int) -> None:
        """Send what a file of a plan is, then its content from ``offset``.

        Raises:
            NotFoundError: ARTIFACT_NOT_FOUND: no result of the plan names it, or its content is not kept.
            InvalidRequestError: the offset is behind its end.
            UnavailableError: WATCH_ENDED, with the offset to go on from.
        """
        found, size = _find(plan, digest), 0
        try:
            size = await self.store.size(plan.id, digest) if found else 0
        except ArtifactNotFoundError:
            found = None

        if found is None:
            message = f"no result of the plan {plan.id} has a file {digest}, or its content is not kept"
            raise error(ErrorReason.ARTIFACT_NOT_FOUND, message, plan_id=plan.id, digest=digest)

        if offset > size:
            fault = f"is {offset}; the file has {size} bytes"
            raise InvalidRequestError.of([Violation("offset", fault, "OUT_OF_RANGE")])

        head = pb.ReadArtifactResponse(artifact=wire.to_message(replace(found, size_bytes=size)))  # type: ignore[arg-type]
        await self._write(context, head, offset)
        try:
            async with aclosing(self.store.read(plan.id, digest, offset)) as pieces:
                async for piece in pieces:
                    if self._draining:
                        raise ended("the server is shutting down; read on from this offset", {"offset": str(offset)})

                    await self._write(context, pb.ReadArtifactResponse(data=piece), offset)
                    offset += len(piece)
        except ArtifactNotFoundError:  # it went with its plan just now
            message = f"the plan {plan.id} is no longer kept"
            raise error(ErrorReason.ARTIFACT_NOT_FOUND, message, plan_id=plan.id, digest=digest) from None

    async def chunks(self, context: _Context, place: str, artifact: Artifact, *, first: bool) -> None:
        """Send a file that a direct call left at ``place`` in the store; ``first`` as in :meth:`send`.

        Raises:
            UnavailableError: WATCH_ENDED: the caller reads nothing.
            ArtifactNotFoundError, ArtifactStoreError: it cannot be read.
        """
        told: Any = wire.to_message(artifact)
        offset = 0
        async with aclosing(self.store.read(place, artifact.digest)) as pieces:
            async for piece in pieces:
                await self.send(context, _chunk(told if not offset else None, piece), first=first and not offset)
                offset += len(piece)

        if not offset:
            await self.send(context, _chunk(told, b""), first=first)

    async def send(self, context: _Context, message: Any, *, first: bool) -> None:
        """Send a message of a direct call; ``first``: none was sent before.

        Raises:
            UnavailableError: WATCH_ENDED: the caller reads nothing.
        """
        if first:
            await begin(context, message.ByteSize())

        try:
            await self._writes.within(whole(context.write(message)))
        except PassedError as passed:
            told = f"nothing was read for {passed.seconds:g} s, so the call was ended, and what it gave is lost"
            raise ended(told, {}) from None

    async def _write(self, context: _Context, message: Any, offset: int) -> None:
        try:
            await self._writes.within(whole(context.write(message)))
        except PassedError as passed:
            told = f"nothing was read for {passed.seconds:g} s; read on from this offset"
            raise ended(told, {"offset": str(offset)}) from None


def _chunk(artifact: Any, data: bytes) -> tool_service_pb2.CallToolResponse:
    return tool_service_pb2.CallToolResponse(
        artifact_chunk=tool_service_pb2.ArtifactChunk(artifact=artifact, data=data)
    )


def _find(plan: Plan, digest: str) -> Artifact | None:
    named = (artifact for step in plan.steps if step.result for artifact in step.result.artifacts)
    return next((artifact for artifact in named if artifact.digest == digest), None)
