"""Functions that save files; worker processes load this file, too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from autoglm import Artifact, Effect, ToolContext, ToolResult, tool


def save(context: ToolContext, kind: str) -> ToolResult | str:
    match kind:
        case "all":
            context.save("small.txt", "small é")
            context.save("large.bin", b"0123456789" * 100_000)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "table.csv"
                path.write_text("a,b\n", "utf-8")
                context.save("of/a path.csv", path)
            return "saved"

        case "own":
            kept = context.save("chart.png", b"png")
            return ToolResult("own", (kept, Artifact("elsewhere", "text/html", 3)))

        case "raise":
            context.save("lost", b"lost")
            raise ValueError("after it was saved")

        case "large":
            context.save("large", bytes(1 << 20))

        case "many":
            for number in range(4):
                context.save(f"{number}", b"")

        case "twice":
            context.save("a", b"1")
            context.save("a", b"2")

        case _:
            raise AssertionError(kind)

    return "done"


@tool(effect=Effect.READ_ONLY)
def thread(context: ToolContext, kind: str) -> object:
    return save(context, kind)


@tool(effect=Effect.READ_ONLY, name="loop")
async def on_loop(context: ToolContext, kind: str) -> object:
    return save(context, kind)


@tool(effect=Effect.READ_ONLY, run="process")
def process(context: ToolContext, kind: str) -> object:
    return save(context, kind)
