"""``mcp``: the server's tools and plans for MCP clients, over pipes or HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from autoglm.cli.exits import Exit, InputError
from autoglm.cli.options import Address, DataDir, Providers, session_of
from autoglm.cli.session import Session

MCP_EXAMPLES = """\
Examples:

\b
  autoglm mcp                               # over pipes: what an MCP client starts
  autoglm mcp --tool 'math.*' --tool 'text.*' --no-plans
  autoglm mcp --http 8080                   # on http://127.0.0.1:8080/mcp

An MCP client starts it with a command, such as {"command": "autoglm", "args": ["mcp"]}. It offers the tools of the server, as
`autoglm tools` lists them, and run_plan, which makes a plan of a request, tells its progress, and answers. A plan is cancelled
when the client cancels the call or goes away. It needs the extra: pip install 'open-autoglm[mcp]'.
"""


def mcp(
    context: typer.Context,
    *,
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve streamable HTTP on this port of 127.0.0.1, instead of stdin and stdout; 0 takes a free one.",
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="GLOB", help="Offer only tools whose names fit, also to plans (repeatable)."),
    ] = None,
    plans: Annotated[bool, typer.Option("--plans/--no-plans", help="Offer run_plan as well.")] = True,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Offer the server's tools and plans to MCP clients."""
    session = session_of(context, address, data_dir, provider)
    try:
        from autoglm import mcp_server  # noqa: PLC0415, F401 - an extra, and a second to import
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "autoglm":
            raise

        raise InputError("this needs an extra: pip install 'open-autoglm[mcp]'") from None

    asyncio.run(_serve(session, http, tuple(tool or ()), plans=plans))
    return Exit.SUCCEEDED


async def _serve(session: Session, http: int | None, tools: tuple[str, ...], *, plans: bool) -> None:
    from autoglm import mcp_server  # noqa: PLC0415 - as above
    from autoglm.aio import AsyncClient  # noqa: PLC0415 - help and completion need no gRPC

    target = session.target
    client = AsyncClient(
        target.address, data_dir=target.data_dir, server_args=target.server_args, progress=session.tell
    )
    async with client:
        server = mcp_server.make_server(client, tools=tools, plans=plans)
        if http is None:
            await mcp_server.serve_pipes(server)
        else:
            await mcp_server.serve_http(server, http, session.tell)
