"""A request in natural language, then a plan of one's own: followed event by event, and as a result.

python examples/python_client.py
"""

from __future__ import annotations

import autoglm

REQUEST = "15% of 2480, then convert it from kilometers to miles"
STEPS = [
    autoglm.StepDraft(id="words", tool="text.count", arguments={"text": "the quick brown fox jumps over the lazy dog"}),
    autoglm.StepDraft(id="root", tool="math.calculate", arguments={"expression": "sqrt(${words.result})"}),
]


def follow(plan: autoglm.PlanHandle) -> None:
    """Print what happens while it happens. A lost connection or a restarted server is nothing to care about here."""
    for event in plan:
        match event.fact:
            case autoglm.StepAdded(step=autoglm.Step(tool=tool)):
                print(f"  {event.sequence:3} {event.step_id} will use {tool}")
            case autoglm.StepStarted(arguments=arguments):
                print(f"  {event.sequence:3} {event.step_id} started with {arguments}")
            case autoglm.StepSucceeded(result=autoglm.ToolResult(output=output)):
                print(f"  {event.sequence:3} {event.step_id} gave {output}")
            case autoglm.StepFailed(failure=autoglm.Failure(message=message)):
                print(f"  {event.sequence:3} {event.step_id} failed: {message}")


def main() -> None:
    # No address: the embedded server, started if there is none. autoglm.init("host:50051") connects to another.
    with autoglm.init() as client:
        print(REQUEST)
        plan = client.run(REQUEST, labels={"example": "python_client"})
        follow(plan)
        print(plan.result(timeout=60).answer)

        print("\nsteps of one's own")
        plan = client.run(steps=STEPS)
        print(plan.result(timeout=60).output)

        print("\nall faults of a request at once")

        try:
            client.validate(steps=[autoglm.StepDraft(id="a", tool="math.calculatr", depends_on=("b",))])
        except autoglm.InvalidRequestError as error:
            for violation in error.violations:
                print(f"  {violation.field}: {violation.description}")


if __name__ == "__main__":
    main()
