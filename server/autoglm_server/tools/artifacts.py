"""Where the files of a call go: bounded, and to the plan on whose behalf it is made, or to the one who calls directly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeAlias

from autoglm._files import FileLimits, check_label
from autoglm.model import DOMAIN, Artifact, ErrorReason, Failure
from autoglm_server.journal.artifacts import (
    ArtifactError,
    ArtifactStore,
    ArtifactStoreError,
    ArtifactTooLargeError,
    Content,
)
from autoglm_server.tools.failures import MESSAGE_MAX, one_line
from autoglm_server.tools.tool import ArtifactSink, Described, ToolCallError

Sinks: TypeAlias = Callable[[str], ArtifactSink]
"""Gives a sink for one call that is made for the plan of this id."""

ARTIFACTS_MAX: Final = 256
"""How many files a result may name."""
_DESCRIBED: Final = Described()


def described(_plan_id: str) -> ArtifactSink:
    """Give a sink that keeps nothing."""
    return _DESCRIBED


class StoreSink:
    """An :class:`~autoglm_server.tools.tool.ArtifactSink` that keeps the files of one call under an id in a store."""

    def __init__(self, store: ArtifactStore, plan_id: str, limits: FileLimits) -> None:
        """Keep the files of one call for the plan ``plan_id``."""
        self._store = store
        self._plan_id = plan_id
        self.limits: FileLimits = limits
        self._size = 0
        self.saved: dict[str, Artifact] = {}
        """What was saved, by name."""
        self.used = False
        """Whether anything was to be saved."""

    async def save(self, name: str, content: Content, media_type: str = "") -> Artifact:
        """Keep a file; see :class:`~autoglm_server.tools.tool.ArtifactSink`."""
        self.used = True
        if name in self.saved:
            raise refused(f"the call has two files {name!r}")

        if len(self.saved) >= self.limits.call_files:
            most = self.limits.call_files
            raise refused(f"the call has more than {most} files (limits.call_artifacts)", limit=most, size=most + 1)

        if isinstance(content, bytes):
            self._check(name, len(content))

        try:
            if isinstance(content, bytes | Path):
                artifact = await self._store.put(self._plan_id, name, media_type, content)
            else:
                async with aclosing(self._counted(name, content)) as pieces:
                    artifact = await self._store.put(self._plan_id, name, media_type, pieces)
        except ArtifactTooLargeError as error:
            raise refused(str(error), limit=error.limit, size=error.size) from None
        except ArtifactError as error:
            raise refused(str(error)) from None
        except ArtifactStoreError as error:
            reason = ErrorReason.JOURNAL_FULL if error.full else ErrorReason.INTERNAL
            raise ToolCallError(Failure(reason.name, DOMAIN, one_line(str(error), MESSAGE_MAX))) from None

        self._check(name, artifact.size_bytes)
        self._size += artifact.size_bytes
        self.saved[name] = artifact
        return artifact

    def _check(self, name: str, size: int) -> None:
        if size > (most := self.limits.file_bytes):
            message = f"the file {name!r} is larger than {most} bytes (limits.artifact)"
            raise refused(message, limit=most, size=size)

        most = self.limits.call_bytes
        if self._size + size > most:
            message = (
                f"with the file {name!r} the call's files are larger than {most} bytes (limits.call_artifacts_bytes)"
            )
            raise refused(message, limit=most, size=self._size + size)

    async def _counted(self, name: str, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        size = 0
        async for piece in pieces:
            size += len(piece)
            self._check(name, size)
            yield piece


def refused(message: str, *, limit: int = 0, size: int = 0) -> ToolCallError:
    """Give the failure INVALID_ARTIFACT. The call has ended and its effect has happened, so it is not retryable."""
    metadata = {"limit": str(limit), "size": str(size)} if limit else {}
    reason = ErrorReason.INVALID_ARTIFACT.name
    return ToolCallError(Failure(reason, DOMAIN, one_line(message, MESSAGE_MAX), metadata=metadata))


def fault_of(artifacts: Sequence[Artifact]) -> str:
    """Say what is wrong with what a result names as its files; nothing if all is well."""
    if len(artifacts) > ARTIFACTS_MAX:
        return f"it names {len(artifacts)} files; at most {ARTIFACTS_MAX}"

    names: set[str] = set()
    for artifact in artifacts:
        if fault := check_label(artifact.name, artifact.media_type):
            return fault

        if artifact.name in names:
            return f"it names two files {artifact.name!r}"

        if not 0 <= artifact.size_bytes < 1 << 63:
            return f"the size of the file {artifact.name!r} is {artifact.size_bytes}"

        if artifact.digest and not is_digest(artifact.digest):
            return f"the digest of the file {artifact.name!r} is not sha256: and 64 hexadecimal digits"

        names.add(artifact.name)

    return ""


def is_digest(text: str) -> bool:
    """Whether this is a digest as ours are written."""
    kind, _, digits = text.partition(":")
    return kind == "sha256" and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
