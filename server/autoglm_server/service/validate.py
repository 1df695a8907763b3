"""The door: every bound of every request, checked before anything else looks at it.

Each function is pure and answers all violations of one request at once; an empty list means that its shape is sound.
What needs the catalog or a plan to be judged is checked behind the door.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from autoglm.v1 import plan_pb2, plan_service_pb2
from autoglm_server.service.bounds import ID, JSON_GROWTH, PRINTABLE, REQUEST_ID_MAX, TOOL_GLOB, TOOL_NAME, Checks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoglm.model import CreatePlanRequest, StepDraft, Violation
    from autoglm.v1 import tool_service_pb2
    from autoglm_server.settings import LimitSettings

PLAN_TIMEOUT_MAX: Final = timedelta(days=30)
WAITING_TIMEOUT_MAX: Final = timedelta(days=366)
BUDGET_DURATION_MAX: Final = timedelta(days=366)
STEP_TIMEOUT_MAX: Final = timedelta(hours=24)
BACKOFF_MAX: Final = timedelta(hours=24)
ATTEMPTS_MAX: Final = 100
TITLE_MAX: Final = 256
CONTEXT_ITEMS_MAX: Final = 256
GLOBS_MAX: Final = 256
NOTE_BYTES_MAX: Final = 4 << 10
PAGE_TOKEN_MAX: Final = 1024
ROUTE_MAX: Final = 16
CONTEXT_ID_MAX: Final = 128
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

_NESTED: Final = frozenset({dict, list})
_TOOL_RULE = "a tool's name: 1 to 128 of A-Z a-z 0-9 _ . -"
_GLOB_RULE = "a tool's name or a glob of * and ?: 1 to 128 of A-Z a-z 0-9 _ . - * ?"


def create_plan(
    request: plan_service_pb2.CreatePlanRequest | plan_service_pb2.RunPlanRequest, limits: LimitSettings
) -> list[Violation]:
    """Check a request for a plan."""
    checks = Checks()

    if (size := request.ByteSize()) > limits.request_bytes:
        checks.add(
            "", f"the request is {size} bytes; at most {limits.request_bytes} (limits.request_bytes)", "TOO_LARGE"
        )
        return checks.violations

    text, steps = request.request, request.steps
    if not steps and not text.strip():
        checks.add("request", "is required: say what is wanted, or give steps", "REQUIRED")

    # What was left out is sound, so nothing looks at it: most requests have little of all this.
    if text:
        checks.utf8("request", text, limits.request_text, "limits.request_text")

    if steps and (len(steps) <= limits.steps or checks.count("steps", steps, limits.steps, "limits.steps")):
        _drafts(checks, steps, limits)

    if request.HasField("options"):
        _options(checks, request.options)

    if request.labels:
        checks.labels(request.labels, limits.labels)

    request_id = request.request_id
    if len(request_id) > REQUEST_ID_MAX or not PRINTABLE.fullmatch(request_id):
        checks.characters("request_id", request_id, REQUEST_ID_MAX)
        checks.matches("request_id", request_id, PRINTABLE, "printable ASCII, best a UUID")

    if request.context_id:
        checks.characters("context_id", request.context_id, CONTEXT_ID_MAX)

    if request.context and checks.count("context", request.context, CONTEXT_ITEMS_MAX):
        _context(checks, request.context, limits)

    return checks.violations


def plainly_sound(request: CreatePlanRequest, limits: LimitSettings, size: int) -> bool:
    """Whether nearly all that :func:`create_plan` looks for is not there at all, and the rest is right.

    So it is with most requests, and a value is looked at in a quarter of the time of its message. Where this is False, that
    tells what is wrong, if anything is. ``size`` is at least that of all arguments, in bytes.
    """
    if request.options is not None or request.labels or request.context or size * JSON_GROWTH > limits.arguments:
        return False

    text, steps, request_id = request.request, request.steps, request.request_id
    if (not steps and not text.strip()) or len(steps) > limits.steps or len(text) * 4 > limits.request_text:
        return False

    if len(request_id) > REQUEST_ID_MAX or not PRINTABLE.fullmatch(request_id):
        return False

    for draft in steps:
        if not _plain(draft, limits):
            return False

    return len(request.context_id) <= CONTEXT_ID_MAX


def _plain(draft: StepDraft, limits: LimitSettings) -> bool:
    return (
        draft.retry_policy is None
        and draft.timeout is None
        and ID.fullmatch(draft.id) is not None
        and TOOL_NAME.fullmatch(draft.tool) is not None
        and len(draft.title) <= TITLE_MAX
        and (
            not draft.depends_on or (len(draft.depends_on) <= limits.steps and all(map(ID.fullmatch, draft.depends_on)))
        )
        and (not draft.arguments or (limits.json_depth > 1 and not _NESTED & set(map(type, draft.arguments.values()))))
    )


def _drafts(checks: Checks, drafts: Iterable[plan_pb2.StepDraft], limits: LimitSettings) -> None:
    # Most drafts are sound: what they are made of is named, and looked at closely, only where it is not.
    for index, draft in enumerate(drafts):
        if not ID.fullmatch(draft.id):
            checks.id(f"steps[{index}].id", draft.id, what="what other steps refer to this one by")

        if len(draft.title) > TITLE_MAX:
            checks.characters(f"steps[{index}].title", draft.title, TITLE_MAX)

        if not TOOL_NAME.fullmatch(draft.tool):
            checks.matches(f"steps[{index}].tool", draft.tool, TOOL_NAME, _TOOL_RULE)

        if draft.HasField("arguments"):
            checks.json(
                f"steps[{index}].arguments",
                draft.arguments,
                bytes_max=limits.arguments,
                depth_max=limits.json_depth,
                limit="limits.arguments",
            )

        before = draft.depends_on

        if before and checks.count(f"steps[{index}].depends_on", before, limits.steps, "limits.steps"):
            for position, other in enumerate(before):
                if not ID.fullmatch(other):
                    checks.id(f"steps[{index}].depends_on[{position}]", other, what="the id of a step")

        if draft.HasField("retry_policy"):
            _retry_policy(checks, f"steps[{index}].retry_policy", draft.retry_policy)

        if draft.HasField("timeout"):
            checks.duration(f"steps[{index}].timeout", draft.timeout, STEP_TIMEOUT_MAX)

        if checks.violations and checks.full:
            return


def _retry_policy(checks: Checks, at: str, policy: plan_pb2.RetryPolicy) -> None:
    checks.between(f"{at}.max_attempts", policy.max_attempts, 0, ATTEMPTS_MAX)
    checks.duration(f"{at}.initial_backoff", policy.initial_backoff, BACKOFF_MAX, zero=True)
    checks.duration(f"{at}.max_backoff", policy.max_backoff, BACKOFF_MAX, zero=True)

    if policy.backoff_multiplier:
        checks.between(f"{at}.backoff_multiplier", policy.backoff_multiplier, 1, 100)


def _options(checks: Checks, options: plan_pb2.PlanOptions) -> None:
    if options.HasField("max_steps"):
        fix = "; to have no steps, set enable_tool_call to false"
        checks.between("options.max_steps", options.max_steps, 1, 1000, fix=fix if options.max_steps == 0 else "")

    if options.HasField("max_rounds"):
        checks.between("options.max_rounds", options.max_rounds, 1, 100)

    if options.HasField("max_parallel_steps"):
        checks.between("options.max_parallel_steps", options.max_parallel_steps, 1, 1000)

    if options.HasField("timeout"):
        checks.duration("options.timeout", options.timeout, PLAN_TIMEOUT_MAX)

    if options.HasField("waiting_timeout"):
        checks.duration("options.waiting_timeout", options.waiting_timeout, WAITING_TIMEOUT_MAX)

    checks.characters("options.planner", options.planner, 64)
    checks.characters("options.model", options.model, 256)
    checks.enum("options.on_unknown_outcome", options.on_unknown_outcome, plan_pb2.UnknownOutcomeAction)

    for name, globs in (("allowed_tools", options.allowed_tools), ("approval_tools", options.approval_tools)):
        if checks.count(f"options.{name}", globs, GLOBS_MAX):
            for index, glob in enumerate(globs):
                checks.matches(f"options.{name}[{index}]", glob, TOOL_GLOB, _GLOB_RULE)

    if options.budget.HasField("max_tokens"):
        checks.at_least("options.budget.max_tokens", options.budget.max_tokens, 1)

    if options.budget.HasField("max_tool_calls"):
        checks.at_least("options.budget.max_tool_calls", options.budget.max_tool_calls, 1)

    if options.budget.HasField("max_rounds"):
        checks.at_least("options.budget.max_rounds", options.budget.max_rounds, 1)

    if options.budget.HasField("max_duration"):
        checks.duration("options.budget.max_duration", options.budget.max_duration, BUDGET_DURATION_MAX)


def _context(checks: Checks, items: Iterable[plan_pb2.ContextItem], limits: LimitSettings) -> None:
    for index, item in enumerate(items):
        at = f"context[{index}]"

        match item.WhichOneof("item"):
            case "plan_id":
                checks.id(f"{at}.plan_id", item.plan_id, what="the id of a plan")
            case "message":
                if item.message.role not in ("user", "assistant"):
                    checks.add(
                        f"{at}.message.role",
                        f'{item.message.role[:64]!r} must be "user" or "assistant"',
                        "UNKNOWN_VALUE",
                    )

                checks.utf8(f"{at}.message.text", item.message.text, limits.request_text, "limits.request_text")
            case _:
                checks.add(at, "is empty: give plan_id or message", "REQUIRED")


def get_plan(request: plan_service_pb2.GetPlanRequest) -> list[Violation]:
    """Check a request for a plan's snapshot."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    checks.enum("view", request.view, plan_service_pb2.PlanView)
    return checks.violations


def list_plans(request: plan_service_pb2.ListPlansRequest, limits: LimitSettings) -> list[Violation]:
    """Check a request for a page of plans."""
    checks = Checks()
    _page(checks, request.page_size, request.page_token)
    checks.labels(request.labels, limits.labels)
    checks.characters("context_id", request.context_id, CONTEXT_ID_MAX)
    checks.matches("parent_plan_id", request.parent_plan_id, ID, "the id of a plan", required=False)
    checks.timestamp("created_after", request.created_after)
    checks.timestamp("created_before", request.created_before)

    if checks.count("states", request.states, 64):
        for index, state in enumerate(request.states):
            checks.enum(f"states[{index}]", state, plan_pb2.PlanState, required=True)

    return checks.violations


def list_steps(request: plan_service_pb2.ListStepsRequest) -> list[Violation]:
    """Check a request for a page of a plan's steps."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    _page(checks, request.page_size, request.page_token)

    if checks.count("states", request.states, 64):
        for index, state in enumerate(request.states):
            checks.enum(f"states[{index}]", state, plan_pb2.StepState, required=True)

    return checks.violations


def watch_plan(request: plan_service_pb2.WatchPlanRequest) -> list[Violation]:
    """Check a request to watch a plan."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    checks.at_least("after_sequence", request.after_sequence, 0)
    checks.characters("journal_id", request.journal_id, 128)
    return checks.violations


def watch_plans(request: plan_service_pb2.WatchPlansRequest, limits: LimitSettings) -> list[Violation]:
    """Check a request to watch every plan."""
    checks = Checks()
    checks.characters("cursor", request.cursor, PAGE_TOKEN_MAX)
    checks.labels(request.labels, limits.labels)
    return checks.violations


def cancel_plan(request: plan_service_pb2.CancelPlanRequest) -> list[Violation]:
    """Check a request to stop a plan."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    checks.utf8("reason", request.reason, NOTE_BYTES_MAX)
    return checks.violations


def resolve_step(request: plan_service_pb2.ResolveStepRequest, limits: LimitSettings) -> list[Violation]:
    """Check a decision."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    checks.id("step_id", request.step_id, what="the id of a step")
    checks.at_least("wait_sequence", request.wait_sequence, 0)
    checks.utf8("comment", request.comment, NOTE_BYTES_MAX)

    match request.decision.WhichOneof("kind"):
        case "reject":
            checks.utf8("decision.reject.reason", request.decision.reject.reason, NOTE_BYTES_MAX)
        case "result":
            _result(checks, "decision.result", request.decision.result, limits)
        case None:
            checks.add("decision", "is required: approve, reject, retry or result", "REQUIRED")
        case _:
            pass

    return checks.violations


def read_artifact(request: plan_service_pb2.ReadArtifactRequest) -> list[Violation]:
    """Check which file is to be read."""
    checks = Checks()
    checks.id("plan_id", request.plan_id, what="the id of a plan")
    checks.matches("digest", request.digest, DIGEST, "sha256: and 64 hexadecimal digits in lower case")
    checks.at_least("offset", request.offset, 0)
    return checks.violations


def _result(checks: Checks, at: str, result: plan_pb2.ToolResult, limits: LimitSettings) -> None:
    checks.json(
        f"{at}.output", result.output, bytes_max=limits.output, depth_max=limits.json_depth, limit="limits.output"
    )

    if checks.count(f"{at}.artifacts", result.artifacts, 64):
        for index, artifact in enumerate(result.artifacts):
            where = f"{at}.artifacts[{index}]"
            checks.characters(f"{where}.name", artifact.name, 256)
            checks.characters(f"{where}.media_type", artifact.media_type, 128)
            checks.characters(f"{where}.digest", artifact.digest, 128)
            checks.at_least(f"{where}.size_bytes", artifact.size_bytes, 0)


def list_tools(request: tool_service_pb2.ListToolsRequest) -> list[Violation]:
    """Check a request for a page of tools."""
    checks = Checks()
    _page(checks, request.page_size, request.page_token)
    checks.characters("provider", request.provider, 128)

    if checks.count("tags", request.tags, 64):
        for index, tag in enumerate(request.tags):
            checks.characters(f"tags[{index}]", tag, 128)

    return checks.violations


def get_tool(request: tool_service_pb2.GetToolRequest) -> list[Violation]:
    """Check a request for a tool."""
    checks = Checks()
    checks.matches("name", request.name, TOOL_NAME, _TOOL_RULE)
    return checks.violations


def call_tool(request: tool_service_pb2.CallToolRequest, limits: LimitSettings) -> list[Violation]:
    """Check a direct call."""
    checks = Checks()
    checks.matches("name", request.name, TOOL_NAME, _TOOL_RULE)
    checks.json(
        "arguments",
        request.arguments,
        bytes_max=limits.arguments,
        depth_max=limits.json_depth,
        limit="limits.arguments",
    )
    checks.characters("idempotency_key", request.idempotency_key, 256)
    checks.characters("tool_digest", request.tool_digest, 128)
    context = request.context
    checks.matches("context.plan_id", context.plan_id, ID, "the id of a plan", required=False)
    checks.matches("context.step_id", context.step_id, ID, "the id of a step", required=False)
    checks.at_least("context.attempt", context.attempt, 0)
    checks.characters("context.principal", context.principal, 256)
    checks.characters("context.approval.principal", context.approval.principal, 256)
    checks.characters("context.approval.arguments_digest", context.approval.arguments_digest, 128)

    if checks.count("context.route", context.route, ROUTE_MAX):
        for index, server in enumerate(context.route):
            checks.characters(f"context.route[{index}]", server, 128)

    return checks.violations


def _page(checks: Checks, page_size: int, page_token: str) -> None:
    checks.at_least("page_size", page_size, 0)
    checks.characters("page_token", page_token, PAGE_TOKEN_MAX)
