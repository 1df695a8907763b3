"""Tools in a process of their own, for any number of servers: a provider over gRPC in one call.

python examples/tool_server.py 127.0.0.1:50061
autoglm run --provider dice=grpc://127.0.0.1:50061 "roll 3 dice with 20 sides"
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Annotated

import autoglm


@autoglm.tool(
    effect=autoglm.Effect.READ_ONLY,
    phrases=[autoglm.Phrase("roll {count:integer} dice with {sides:integer} sides", "You rolled {output}.", "en")],
)
async def roll(
    count: Annotated[int, autoglm.Constraint(minimum=1, maximum=100)],
    context: autoglm.ToolContext,
    sides: Annotated[int, autoglm.Constraint(minimum=2, maximum=1000)] = 6,
) -> list[int]:
    """Roll dice.

    Args:
        count: How many.
        sides: How many sides each has.
    """
    rolled: list[int] = []

    for number in range(count):
        await asyncio.sleep(0.05)  # ends by itself when the plan is stopped
        rolled.append(random.randint(1, sides))
        context.progress((number + 1) / count, f"a {rolled[-1]}")

    return rolled


if __name__ == "__main__":
    autoglm.serve_tools([roll], *sys.argv[1:2])
