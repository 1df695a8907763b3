"""A secret used in a plan is in no sink of the server: journal, events, answers, log. The control is in every one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToJson, ParseDict

from autoglm.v1 import plan_service_pb2 as pb
from autoglm.v1 import tool_service_pb2

CANARY = "c4nary+value/of=a-secret"
TOOLS = '''
import logging
from typing import Annotated
import autoglm
from autoglm import Effect

Secret = Annotated[str, autoglm.Constraint(format="password")]

@autoglm.tool(name="echo", effect=Effect.READ_ONLY)
def echo(token: Secret, plain: str, context: autoglm.ToolContext) -> dict:
    """Give back all that was given.

    Args:
        token: a secret.
        plain: a text.
    """
    context.progress(0.5, f"with {token}", data={"token": token}, text=token[:9])
    context.progress(0.6, text=token[9:])
    logging.getLogger("tool").warning("called with %s", token, extra={"given": token})
    return {"token": token, "in": [f"<{token}>"], token: 1, "plain": plain}

@autoglm.tool(name="fail", effect=Effect.READ_ONLY)
def fail(token: Secret) -> str:
    """Fail with all that was given.

    Args:
        token: a secret.
    """
    raise ValueError(f"refused: {token}")

@autoglm.tool(name="refuse", effect=Effect.READ_ONLY)
def refuse(token: Secret) -> str:
    """Refuse, as data.

    Args:
        token: a secret.
    """
    raise autoglm.ToolError(f"refused: {token}", reason="REFUSED", metadata={"token": token})
'''


def sinks(server: Any) -> Iterator[tuple[str, bytes]]:
    """Give every file that the server wrote."""
    yield "log", server.log.read_bytes()
    for path in sorted(server.data_dir.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()


async def answers(server: Any, token: str) -> str:
    """Run a plan and calls with ``token``; give all that a client is told of them."""
    plans = await server.plans()
    request = {
        "steps": [
            {"id": "a", "tool": "t.echo", "arguments": {"token": token, "plain": "x"}},
            {"id": "b", "tool": "t.echo", "arguments": {"token": token, "plain": "${a.in[0]}"}},
            {"id": "c", "tool": "t.fail", "arguments": {"token": token}},
            {"id": "d", "tool": "t.refuse", "arguments": {"token": token}},
        ]
    }
    run = plans.RunPlan(ParseDict(request, pb.RunPlanRequest()))
    told = [MessageToJson(message) async for message in run]
    plan_id = json.loads(told[0])["events"][0]["planId"]
    told.append(MessageToJson(await plans.GetPlan(pb.GetPlanRequest(plan_id=plan_id))))
    told.append(MessageToJson(await plans.ListSteps(pb.ListStepsRequest(plan_id=plan_id))))
    told.append(MessageToJson(await plans.ListPlans(pb.ListPlansRequest())))
    replay = plans.WatchPlan(pb.WatchPlanRequest(plan_id=plan_id))
    told += [MessageToJson(message) async for message in replay]

    tools = await server.tools()
    for name in ("t.echo", "t.fail", "t.refuse"):
        arguments = {"token": token} | ({"plain": "x"} if name == "t.echo" else {})
        call = tools.CallTool(ParseDict({"name": name, "arguments": arguments}, tool_service_pb2.CallToolRequest()))
        told += [MessageToJson(message) async for message in call]

    # A refused request tells what is wrong with it, and not what it holds.
    bad = ParseDict({"steps": [{"id": "x", "tool": "t.nothing"}]}, pb.CreatePlanRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plans.CreatePlan(bad)

    return "\n".join([*told, str(caught.value.details())])


@pytest.mark.parametrize("by_reference", [True, False])
async def test_a_secret_is_in_no_sink(start: Any, tmp_path: Path, by_reference: bool) -> None:
    (tmp_path / "secret_tools.py").write_text(TOOLS)
    (tmp_path / "token").write_text(CANARY + "\n")
    flags = ["--provider", f"t=python:{tmp_path / 'secret_tools.py'}"]
    known = {"SECRETS": json.dumps({"token": f"file:{tmp_path / 'token'}"})} if by_reference else {}
    server = await start(*flags, **known).serving()
    told = await answers(server, "secret://token" if by_reference else CANARY)
    server.signal()
    assert await server.ended() == 0

    places = {name for name, data in sinks(server) if CANARY.encode() in data}
    if by_reference:
        assert places == set()
        assert CANARY not in told
        assert CANARY[:9] not in told
        assert "secret://token" in told, "what was planned is told"
        assert '"token": "***"' in told, "the tool was given the value, and it was taken out again"
        assert "refused: ***" in server.log.read_text()
    else:
        assert CANARY in told, "the control"
        assert "log" in places
        assert any("journal" in name or ".db" in name or "sqlite" in name for name in places), places
