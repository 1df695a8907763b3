"""Several plans at once on one connection: each prints its answer as soon as it is there, and one that fails says why.

python examples/async_client.py
"""

from __future__ import annotations

import asyncio

import autoglm

REQUESTS = (
    "15% of 2480",
    "convert 42.195 kilometers to miles",
    "the square root of 1764",
    'count the words in "to be or not to be"',
    "fold the laundry",  # nothing here can do that
)


async def answer(client: autoglm.AsyncClient, request: str) -> str:
    """Run a request and give its answer, or why there is none."""
    try:
        plan = await client.run(request, labels={"example": "async_client"})
        return (await plan.result(timeout=60)).answer
    except autoglm.PlanFailedError as error:
        failure = error.plan.failure
        return f"failed: {failure.reason}" if failure else "failed"


async def ask(client: autoglm.AsyncClient, request: str) -> None:
    print(f"{request} -> {await answer(client, request)}")


async def stop_one(client: autoglm.AsyncClient) -> None:
    """Cancel a plan that waits for a person, and see that it has stopped."""
    step = autoglm.StepDraft(
        id="pay", tool="math.calculate", arguments={"expression": "2 * 21"}, requires_approval=True
    )
    plan = await client.run(steps=[step])
    await plan.cancel("asked for the wrong thing")

    try:
        await plan.result(timeout=60)
    except autoglm.PlanCancelledError as error:
        print(f"a plan that waited for approval -> {error.plan.state.name}")


async def main() -> None:
    async with autoglm.AsyncClient() as client, asyncio.TaskGroup() as tasks:
        for request in REQUESTS:
            tasks.create_task(ask(client, request))

        tasks.create_task(stop_one(client))


if __name__ == "__main__":
    asyncio.run(main())
