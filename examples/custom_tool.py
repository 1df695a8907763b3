"""A tool of one's own, with progress, and with a side effect that happens once however often the call is made.

The server loads this file for its tools; run as a program, it starts such a server and makes a plan:

python examples/custom_tool.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypedDict

import autoglm

RECEIPTS = Path(os.environ.get("SHOP_RECEIPTS") or Path(tempfile.gettempdir()) / f"autoglm-shop-{os.getuid()}")


class Receipt(TypedDict):
    """What was paid: the number to ask for it by, and the amount."""

    number: str
    cents: int


@autoglm.tool(effect=autoglm.Effect.READ_ONLY, timeout=timedelta(seconds=30))
def pack(
    items: Annotated[list[str], autoglm.Constraint(min_length=1, max_length=100)], context: autoglm.ToolContext
) -> int:
    """Pack items, telling how far it is; gives how many there are.

    Args:
        items: What to pack.
    """
    for number, item in enumerate(items):
        context.progress(number / len(items), f"packing {item}")

        # A function in a thread cannot be stopped from outside: it looks whether it was told to stop.
        if context.wait_cancelled(0.1):
            context.raise_if_cancelled()

    return len(items)


# IDEMPOTENT is a promise, kept by the idempotency key, which is the same for every attempt at a step, after a failure and
# after a crash. A tool that cannot keep it leaves the default, NON_IDEMPOTENT: a call whose outcome nobody knows then waits
# for a person.
@autoglm.tool(effect=autoglm.Effect.IDEMPOTENT)
def pay(order: str, cents: Annotated[int, autoglm.Constraint(minimum=1)], context: autoglm.ToolContext) -> Receipt:
    """Pay for an order.

    Args:
        order: The order's name.
        cents: How much.
    """
    RECEIPTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    receipt = Receipt(number=f"{order}-{context.plan_id[-6:]}", cents=cents)
    kept = RECEIPTS / f"{context.idempotency_key.replace('/', '_')}.json"
    fresh = kept.with_suffix(f".{context.attempt}")
    fresh.write_text(json.dumps(receipt), encoding="utf-8")

    try:
        os.link(fresh, kept)  # in one step, and only the first time
    except FileExistsError:
        receipt = json.loads(kept.read_text(encoding="utf-8"))
    finally:
        fresh.unlink()

    return receipt


def main() -> int:
    steps = [
        autoglm.StepDraft(id="pack", tool="shop.pack", arguments={"items": ["a lamp", "two chairs", "a rug"]}),
        autoglm.StepDraft(id="price", tool="math.calculate", arguments={"expression": "${pack} * 1250"}),
        autoglm.StepDraft(id="pay", tool="shop.pay", arguments={"order": "spring", "cents": "${price.result}"}),
    ]

    with autoglm.init(server_args=["--provider", f"shop=python:{Path(__file__).resolve()}"]) as client:
        plan = client.run(steps=steps)

        for event in plan:
            match event.fact:
                case autoglm.StepProgressed(fraction=fraction, message=message):
                    print(f"{event.step_id}: {fraction:.0%} {message}")
                case autoglm.StepSucceeded(result=autoglm.ToolResult(output=output)):
                    print(f"{event.step_id}: {output}")

        try:
            plan.result(timeout=60)
        except autoglm.PlanFailedError as error:
            print(error, file=sys.stderr)
            return 1

    return 0


if __name__ == "__main__":
    sys.exit(main())
