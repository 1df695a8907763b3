"""Files of results from every kind of provider: functions wherever they run, served functions, peers that lie, MCP."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import autoglm
from autoglm._files import FileLimits
from autoglm.model import Artifact, Failure, ToolResult
from autoglm.v1 import tool_service_pb2 as pb
from autoglm_server.journal.artifacts import FolderArtifacts
from autoglm_server.tools.artifacts import StoreSink, fault_of
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.tool import ArtifactSink, Described, Invocation, ToolCallError
from tests.server.tools import file_tools
from tests.server.tools.grpc_peers import Peer, catalog_of, served, tool, until

FILE = Path(file_tools.__file__)
SMALL, LARGE, TABLE = "small é".encode(), b"0123456789" * 100_000, b"a,b\n"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FolderArtifacts]:
    found = FolderArtifacts(tmp_path / "artifacts", durable=False)
    await found.open()
    yield found
    await found.close()


@pytest.fixture(params=["thread", "loop", "process", "served"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Catalog, str]]:
    """A catalog, and the name of the function as it runs in each place."""
    if request.param != "served":
        async with catalog_of(open_provider("t", f"python:{FILE}")) as catalog:
            yield catalog, f"t.{request.param}"
    else:
        async with (
            autoglm.ToolServer([file_tools.thread], "127.0.0.1:0") as server,
            catalog_of(open_provider("t", f"grpc://{server.address}")) as catalog,
        ):
            await until(lambda: catalog.get("t.thread"))
            yield catalog, "t.thread"


async def call(catalog: Catalog, name: str, sink: ArtifactSink, **arguments: Any) -> ToolResult:
    return await catalog.call(Invocation(name, arguments, "p/s", 15, artifacts=sink))


async def failure(catalog: Catalog, name: str, sink: ArtifactSink, **arguments: Any) -> Failure:
    with pytest.raises(ToolCallError) as caught:
        await call(catalog, name, sink, **arguments)

    return caught.value.failure


async def content(store: FolderArtifacts, digest: str) -> bytes:
    return b"".join([piece async for piece in store.read("p", digest)])


async def test_a_function_saves_files_wherever_it_runs(place: tuple[Catalog, str], store: FolderArtifacts) -> None:
    result = await call(*place, StoreSink(store, "p", FileLimits()), kind="all")

    assert result.output == "saved"
    assert [(each.name, each.media_type, each.size_bytes) for each in result.artifacts] == [
        ("small.txt", "text/plain", len(SMALL)),
        ("large.bin", "application/octet-stream", len(LARGE)),
        ("of/a path.csv", "text/csv", len(TABLE)),
    ]
    assert [await content(store, each.digest) for each in result.artifacts] == [SMALL, LARGE, TABLE]


async def test_a_function_may_name_its_files_itself(place: tuple[Catalog, str], store: FolderArtifacts) -> None:
    result = await call(*place, StoreSink(store, "p", FileLimits()), kind="own")

    assert [each.name for each in result.artifacts] == ["chart.png", "elsewhere"]
    assert await content(store, result.artifacts[0].digest) == b"png"


async def test_the_files_of_a_call_that_fails_are_dropped(
    place: tuple[Catalog, str], store: FolderArtifacts, tmp_path: Path
) -> None:
    assert (await failure(*place, StoreSink(store, "p", FileLimits()), kind="raise")).reason == "TOOL_ERROR"
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(("kind", "limit", "size"), [("large", 1000, 1 << 20), ("many", 3, 4)])
async def test_the_limits_hold_wherever_it_runs(
    place: tuple[Catalog, str], store: FolderArtifacts, kind: str, limit: int, size: int
) -> None:
    limits = FileLimits(1000, 3, 2000)
    bounded = FolderArtifacts(store._plans.parent, file_bytes=limits.file_bytes, durable=False)
    await bounded.open()
    found = await failure(*place, StoreSink(bounded, "p", limits), kind=kind)
    await bounded.close()

    assert (found.reason, found.domain, found.retryable) == ("INVALID_ARTIFACT", "autoglm", False)
    assert found.metadata["limit"] == str(limit)
    assert int(found.metadata["size"]) > limit

    # The control: the same call, with room for it.
    assert (await call(*place, StoreSink(store, "p", FileLimits()), kind=kind)).output == "done"


async def test_a_name_is_taken_once(place: tuple[Catalog, str], store: FolderArtifacts) -> None:
    found = await failure(*place, StoreSink(store, "p", FileLimits()), kind="twice")

    assert found.reason == "TOOL_ERROR"
    assert "has saved a file 'a' already" in found.message


async def test_a_full_disk_fails_the_call_clearly_and_the_next_one_works(
    store: FolderArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    async with catalog_of(open_provider("t", f"python:{FILE}")) as catalog:
        with monkeypatch.context() as patch:
            patch.setattr("autoglm_server.journal.artifacts._Writing.write", refuse)
            found = await failure(catalog, "t.thread", StoreSink(store, "p", FileLimits()), kind="own")

        assert (found.reason, found.retryable) == ("JOURNAL_FULL", False)
        assert found.message == "the file 'chart.png' cannot be kept: No space left on device"
        assert (await call(catalog, "t.thread", StoreSink(store, "p", FileLimits()), kind="own")).output == "own"


# --- peers that do not do as they say


def chunk(name: str = "", told: bytes = b"", data: bytes = b"", **fields: Any) -> pb.CallToolResponse:
    """A part of a file; with a ``name`` the first, which says that it is ``told``."""
    message = pb.CallToolResponse()
    message.artifact_chunk.data = data
    if name:
        artifact = {"size_bytes": len(told), "digest": f"sha256:{hashlib.sha256(told).hexdigest()}"} | fields
        message.artifact_chunk.artifact.MergeFrom(_artifact(name=name, **artifact))

    return message


def _artifact(**fields: Any) -> Any:
    message = pb.ArtifactChunk()
    for name, value in fields.items():
        setattr(message.artifact, name, value)

    return message.artifact


def last(*names: str) -> pb.CallToolResponse:
    message = pb.CallToolResponse()
    message.result.output.string_value = "ok"
    for name in names:
        message.result.artifacts.add(name=name, size_bytes=1)

    return message


def progress() -> pb.CallToolResponse:
    message = pb.CallToolResponse()
    message.progress.fraction = 0.5
    return message


async def from_peer(store: FolderArtifacts, *messages: pb.CallToolResponse) -> ToolResult | Failure:
    async def behave(context: Any) -> None:
        for message in messages:
            await context.write(message)

    peer = Peer(tool("files"))
    peer.behave = behave
    async with served(peer) as address, catalog_of(open_provider("t", f"grpc://{address}")) as catalog:
        await until(lambda: catalog.get("t.files"))
        try:
            return await call(catalog, "t.files", StoreSink(store, "p", FileLimits(file_bytes=100, call_files=2)))
        except ToolCallError as error:
            return error.failure


async def test_parts_may_have_progress_between_them(store: FolderArtifacts) -> None:
    parts = (chunk("a", b"12", b"1"), progress(), chunk(data=b"2"), chunk("b", b""), last("a", "b"))
    result = await from_peer(store, *parts)

    assert isinstance(result, ToolResult)
    assert await content(store, f"sha256:{hashlib.sha256(b'12').hexdigest()}") == b"12"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((chunk("a", b"12", b"1"), last("a")), id="cut short"),
        pytest.param((chunk("a", b"12", b"13"), last("a")), id="another content"),
        pytest.param((chunk("a", b"12", b"12", size_bytes=3), last("a")), id="another size"),
        pytest.param((chunk("a", b"12", b"12", digest=""), last("a")), id="no digest"),
        pytest.param((chunk(data=b"12"), last("a")), id="no beginning"),
        pytest.param((chunk("a", b""), chunk("a", b""), last("a")), id="a name twice"),
        pytest.param((chunk("a", b""), chunk("b", b""), chunk("c", b""), last("a")), id="too many"),
        pytest.param((chunk("a\nb", b""), last("a")), id="a name that cannot be shown"),
        pytest.param((last("a", "a"),), id="a result that names two alike"),
        pytest.param((last(""),), id="a result that names nothing"),
    ],
)
async def test_a_peer_whose_files_are_not_what_it_says_has_failed(
    store: FolderArtifacts, messages: tuple[pb.CallToolResponse, ...]
) -> None:
    found = await from_peer(store, *messages)

    assert isinstance(found, Failure)
    assert (found.reason, found.domain, found.retryable) == ("INVALID_ARTIFACT", "autoglm", False)
    assert b"13" not in [path.read_bytes() for path in store._plans.rglob("*") if path.is_file()]


async def test_a_peer_that_names_a_file_without_content_has_described_it(store: FolderArtifacts) -> None:
    result = await from_peer(store, last("https://example.org/a"))

    assert isinstance(result, ToolResult)
    assert result.artifacts == (Artifact("https://example.org/a", "", 1, ""),)


async def test_a_peer_that_breaks_off_in_a_file_leaves_none(store: FolderArtifacts, tmp_path: Path) -> None:
    found = await from_peer(store, chunk("a", b"12", b"1"))

    assert isinstance(found, Failure)
    assert (found.reason, found.outcome_unknown) == ("INVALID_OUTPUT", True)
    await store.close()
    assert [path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


# --- the sinks themselves


async def test_where_nothing_is_kept_files_are_described(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    (tmp_path / "file").write_bytes(b"12")
    digest = f"sha256:{hashlib.sha256(b'12').hexdigest()}"

    for given in (b"12", tmp_path / "file", pieces()):
        assert await Described().save("a", given, "x/y") == Artifact("a", "x/y", 2, digest)


def test_what_a_result_names_is_bounded() -> None:
    assert fault_of([Artifact(str(number)) for number in range(256)]) == ""
    assert "at most 256" in fault_of([Artifact(str(number)) for number in range(257)])
    assert "size" in fault_of([Artifact("a", "", -1)])
    assert "digest" in fault_of([Artifact("a", "", 1, "md5:abc")])
