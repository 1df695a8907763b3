"""Both clients and files: read and save, over connections that are cut; the files of a direct call."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import autoglm
from autoglm import aio, wire
from autoglm import client as synchronous
from autoglm.model import Artifact, Plan, PlanState, Step, ToolResult
from autoglm.v1 import failure_pb2, tool_service_pb2
from autoglm.v1 import plan_service_pb2 as pb
from tests.sdk.both import Both
from tests.sdk.scripted_server import Crash, Fail, Freeze, Script, ScriptedServer

CONTENT = b"0123456789"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
CHART = Artifact("charts/one.png", "image/png", 10, DIGEST)
GONE = Fail("UNAVAILABLE", text="the server goes")
FAILED = tool_service_pb2.CallToolResponse(failure=failure_pb2.Failure(reason="FAILED"))
ENDED = Fail("UNAVAILABLE", "WATCH_ENDED", "read on from this offset")


def message(value: Any) -> Any:
    return wire.to_message(value)


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


def head(artifact: Artifact = CHART) -> Any:
    return pb.ReadArtifactResponse(artifact=message(artifact))


def part(data: bytes) -> Any:
    return pb.ReadArtifactResponse(data=data)


def asked(server: ScriptedServer) -> list[int]:
    return [request.offset for request in server.requests["ReadArtifact"]]


async def test_reading(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [head(), part(CONTENT[:4]), part(CONTENT[4:])])

    assert b"".join(await both.collect(both.client.read_artifact("p1", DIGEST))) == CONTENT
    request = server.requests["ReadArtifact"][0]
    assert (request.plan_id, request.digest, request.offset) == ("p1", DIGEST, 0)


async def test_it_goes_on_where_it_was_cut(both: Both, server: ScriptedServer) -> None:
    scripts: list[Script] = [
        [GONE],
        [head(), part(CONTENT[:3]), GONE],
        [head(), part(CONTENT[3:5]), ENDED],
        [head(), part(CONTENT[5:])],
    ]
    server.on("ReadArtifact", *scripts)

    assert b"".join(await both.collect(both.client.read_artifact("p1", DIGEST))) == CONTENT
    assert asked(server) == [0, 0, 3, 5]


async def test_it_begins_at_an_offset(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [head(), part(CONTENT[7:8]), GONE], [head(), part(CONTENT[8:])])

    assert b"".join(await both.collect(both.client.read_artifact("p1", DIGEST, offset=7))) == CONTENT[7:]
    assert asked(server) == [7, 8]


async def test_a_connection_that_says_nothing_counts_as_lost(
    both: Both, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (aio, synchronous):
        monkeypatch.setattr(module, "_SILENT", 0.3)

    server.on("ReadArtifact", [head(), part(CONTENT[:3]), Freeze()], [head(), part(CONTENT[3:])])

    assert b"".join(await both.collect(both.client.read_artifact("p1", DIGEST))) == CONTENT
    assert asked(server) == [0, 3]


async def test_a_refusal_is_raised_at_once(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [Fail("NOT_FOUND", "ARTIFACT_NOT_FOUND")])

    with pytest.raises(autoglm.NotFoundError) as raised:
        await both.collect(both.client.read_artifact("p1", DIGEST))

    assert raised.value.reason == "ARTIFACT_NOT_FOUND"
    assert len(asked(server)) == 1


async def test_it_gives_up_when_the_server_stays_away(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [GONE])

    with pytest.raises(autoglm.UnavailableError):
        await both.collect(both.client.read_artifact("p1", DIGEST))


async def test_a_stream_that_ends_early_is_an_error(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [head(), part(CONTENT[:9])])

    with pytest.raises(autoglm.InternalError, match="ended after 9 of 10 bytes"):
        await both.collect(both.client.read_artifact("p1", DIGEST))


async def test_one_who_reads_a_part_lets_go_of_the_call(both: Both, server: ScriptedServer) -> None:
    server.on("ReadArtifact", [head(), part(CONTENT[:3]), Freeze()])
    reading = both.client.read_artifact("p1", DIGEST)

    if both.asynchronous:
        await anext(reading)
        await reading.aclose()
    else:
        next(reading)
        reading.close()

    assert server.cancelled.acquire(timeout=10)


async def test_saving(both: Both, server: ScriptedServer, tmp_path: Path) -> None:
    server.on("ReadArtifact", [head(), part(CONTENT[:4]), GONE], [head(), part(CONTENT[4:])])
    seen: list[int] = []
    found = await both.do(both.client.save_artifact("p1", CHART, tmp_path, progress=seen.append))

    assert found == tmp_path / "charts_one.png"
    assert contents(tmp_path) == [CONTENT]
    assert seen == [4, 10]

    with pytest.raises(FileExistsError):
        await both.do(both.client.save_artifact("p1", CHART, str(found)))

    server.on("ReadArtifact", [head(), part(CONTENT)])
    await both.do(both.client.save_artifact("p1", DIGEST, found, overwrite=True))
    assert found.read_bytes() == CONTENT


@pytest.mark.parametrize("script", [[head(), part(b"9876543210")], [head(), part(CONTENT[:3]), Fail("INTERNAL")]])
async def test_what_is_damaged_or_cut_for_good_leaves_nothing(
    both: Both, server: ScriptedServer, tmp_path: Path, script: Script
) -> None:
    server.on("ReadArtifact", script)

    with pytest.raises(autoglm.InternalError):
        await both.do(both.client.save_artifact("p1", CHART, tmp_path / "file"))

    assert contents(tmp_path) == []


async def test_what_is_only_described_cannot_be_saved(both: Both, server: ScriptedServer, tmp_path: Path) -> None:
    with pytest.raises(autoglm.NotFoundError, match="described alone"):
        await both.do(both.client.save_artifact("p1", Artifact("https://example.org"), tmp_path))

    assert asked(server) == []


async def test_a_handle_knows_its_files(both: Both, server: ScriptedServer, tmp_path: Path) -> None:
    steps = (Step(id="a"), Step(id="b", result=ToolResult(None, (CHART,))))
    made = Plan(id="p1", state=PlanState.SUCCEEDED, sequence=9, steps=steps)
    server.on("CreatePlan", [pb.CreatePlanResponse(plan=message(made))])
    server.on("ReadArtifact", [head(), part(CONTENT)])
    handle = await both.do(both.client.run("15% of 2480"))

    assert handle.artifacts == (CHART,)
    assert (await both.do(handle.save_artifact(CHART, tmp_path / "x"))).read_bytes() == CONTENT


# --- direct calls


def chunk(data: bytes, artifact: Artifact | None = None) -> Any:
    told = None if artifact is None else message(artifact)
    return tool_service_pb2.CallToolResponse(artifact_chunk=tool_service_pb2.ArtifactChunk(artifact=told, data=data))


def last(*artifacts: Artifact) -> Any:
    return tool_service_pb2.CallToolResponse(result=message(ToolResult("ok", artifacts)))


async def test_a_direct_call_saves_its_files(both: Both, server: ScriptedServer, tmp_path: Path) -> None:
    server.on("CallTool", [chunk(CONTENT[:5], CHART), chunk(CONTENT[5:]), last(CHART)])
    told: list[Any] = []
    folder = tmp_path / "new" / "folder"
    result = await both.do(
        both.client.tools.call("draw", save_to=folder, on_file=lambda artifact, path: told.append((artifact, path)))
    )

    assert result == ToolResult("ok", (CHART,))
    assert told == [(CHART, folder / "charts_one.png")]
    assert contents(folder) == [CONTENT]


async def test_without_a_folder_files_are_dropped(both: Both, server: ScriptedServer) -> None:
    server.on("CallTool", [chunk(CONTENT, CHART), last(CHART)])

    assert (await both.do(both.client.tools.call("draw"))).artifacts == (CHART,)


@pytest.mark.parametrize("end", [GONE, Crash(), FAILED])
async def test_a_call_that_fails_leaves_no_file(both: Both, server: ScriptedServer, tmp_path: Path, end: Any) -> None:
    server.on("CallTool", [chunk(CONTENT, CHART), end])

    with pytest.raises(autoglm.AutoglmError):
        await both.do(both.client.tools.call("draw", save_to=tmp_path))

    assert contents(tmp_path) == []
