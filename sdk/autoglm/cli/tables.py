"""Plans, steps and tools as text for a person: aligned columns, nothing read out of data as markup. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autoglm.cli import waits
from autoglm.cli.exits import failure_line, failure_lines
from autoglm.cli.nested import DEPTH_MAX, child_id
from autoglm.cli.session import Target
from autoglm.cli.text import clean, count, duration, moment, one_line, plain_json, size, value_text
from autoglm.cli.tree import PLAN_STYLES
from autoglm.model import (
    Artifact,
    Effect,
    Plan,
    Plugin,
    PluginState,
    Step,
    StepState,
    Tool,
    ToolExample,
    ToolResult,
    Usage,
)

OUTPUT_CHARS_MAX = 200
_DIGEST_CHARS = len("sha256:") + 12
_STEP_STYLES = {
    StepState.WAITING: "bold yellow",
    StepState.RUNNING: "cyan",
    StepState.SUCCEEDED: "green",
    StepState.FAILED: "bold red",
    StepState.CANCELLED: "yellow",
}
_PLUGIN_STYLES = {
    PluginState.ACTIVE: "green",
    PluginState.DEGRADED: "bold yellow",
    PluginState.FAILED: "bold red",
}
_EFFECTS = {
    Effect.READ_ONLY: "read only",
    Effect.IDEMPOTENT: "idempotent",
    Effect.NON_IDEMPOTENT: "not idempotent",
}


def plugins(found: Sequence[Plugin]) -> RenderableType:
    """Show plugins, one a line, each followed by what is to be said of it."""
    table = _table("plugin", "version", "state", "mode", "source", "gives")

    for plugin in found:
        state = Text(plugin.state.name.lower(), _PLUGIN_STYLES.get(plugin.state, ""))
        table.add_row(
            Text(one_line(plugin.name)),
            Text(one_line(plugin.version)),
            state,
            Text(one_line(plugin.mode) if plugin.enabled else ""),
            Text(one_line(plugin.source)),
            Text(_gives(plugin)),
        )

    notes = [Text(one_line(f"{plugin.name}: {note}")) for plugin in found for note in _notes(plugin)]
    return Group(table, *([Text(), *notes] if notes else []))


def _gives(plugin: Plugin) -> str:
    counts = [count(len(plugin.tools), "tool")] if plugin.tools else []
    counts += [count(len(plugin.planners), "planner")] if plugin.planners else []
    return ", ".join(counts)


def _notes(plugin: Plugin) -> Iterator[str]:
    if plugin.reason:
        yield plugin.reason

    if plugin.errors and plugin.state is not PluginState.FAILED:
        yield f"{count(plugin.errors, 'call')} of its hooks failed"

    if plugin.dropped:
        yield f"it was not told of {count(plugin.dropped, 'event')}"


def plans(found: Sequence[Plan], given: Mapping[str, Sequence[Step]]) -> RenderableType:
    """Show plans, one a line; ``given`` are the first steps of those that were given their steps, by their ids."""
    table = _table("plan", "state", "created", "steps", "request")

    for plan in found:
        counts = plan.step_counts
        done = f"{counts.succeeded}/{counts.total}" if counts and counts.total else ""
        table.add_row(
            Text(one_line(plan.id)),
            Text(plan.state.name.lower(), PLAN_STYLES.get(plan.state, "cyan")),
            Text(moment(plan.create_time)),
            Text(done),
            _free(_asked(plan, given.get(plan.id, ()))),
        )

    return table


def _asked(found: Plan, given: Sequence[Step]) -> str:
    """Tell what a plan was made for: its request, or its first steps and its labels where it was given its steps."""
    if found.request:
        return one_line(found.request, 200)

    counts = found.step_counts
    more = ", …" if counts and counts.total > len(given) else ""
    steps = ", ".join(one_line(step.title or step.tool, 60) for step in given)
    labels = ", ".join(f"{key}={value}" for key, value in sorted(found.labels.items()))
    return one_line(" ".join(part for part in (f"{steps}{more}" if steps else "given steps", labels) if part), 200)


def plan(found: Plan, target: Target, below: Mapping[str, Plan] | None = None) -> RenderableType:
    """Show all there is to say of a plan to a person; ``below`` are its sub-plans by their ids, shown below their steps."""
    head = Table.grid(padding=(0, 2))

    for name, value in _facts(found):
        head.add_row(Text(name, "dim"), Text(value))

    state = Text(found.state.name.lower(), PLAN_STYLES.get(found.state, "cyan"))
    parts: list[RenderableType] = [Text.assemble(one_line(found.id) or "plan (dry run)", "  ", state), _indented(head)]

    if found.steps:
        parts += [Text(), steps(found.steps, below or {})]

    for each in (found, *(below or {}).values()):
        for wait in waits.waits_of(each.id, each.steps):
            parts.append(Text())
            parts += [Text(line) for line in (*waits.question(wait), *waits.commands(wait, target))]

    if found.failure is not None:
        first, *rest = failure_lines(found.failure)
        parts += [Text(), Text(f"failed: {first}", "red"), *(Text(line) for line in rest)]

    if found.answer:
        parts += [Text(), Text(clean(found.answer))]

    return Group(*parts)


def steps(found: Sequence[Step], below: Mapping[str, Plan]) -> RenderableType:
    """Show steps, one a line, and those of sub-plans below the steps that ran them."""
    rows = list(_with_nested(found, below))
    provider = _provider_column(step.provider for _, step in rows)
    columns = ("step", "state", "tool", *provider, "took", "calls", "result or arguments")
    table = _table(*columns)

    for depth, step in rows:
        began, ended = step.start_time, step.end_time
        table.add_row(
            Text("  " * depth + one_line(step.id)),
            Text(step.state.name.lower(), _STEP_STYLES.get(step.state, "dim")),
            Text(one_line(step.tool)),
            *(Text(one_line(step.provider)) for _ in provider),
            Text(duration(ended - began) if began and ended else ""),
            Text(str(len(step.tool_calls) or "")),
            _free(_outcome(step)),
        )

        for artifact in step.result.artifacts if step.result else ():
            table.add_row(*[Text()] * (len(columns) - 1), _free("  ".join(filter(None, _told(artifact)))))

    return table


def _with_nested(found: Sequence[Step], below: Mapping[str, Plan], depth: int = 0) -> Iterator[tuple[int, Step]]:
    for step in found:
        yield depth, step

        if depth < DEPTH_MAX and (child := below.get(child_id(step))) is not None:
            yield from _with_nested(child.steps, below, depth + 1)


def files(found: Sequence[tuple[str, Artifact]]) -> RenderableType:
    """Show files and the steps whose results carry them, one a line."""
    table = _table("step", "size", "type", "digest", "name")

    for step_id, artifact in found:
        name, kind, length, digest = _told(artifact)
        table.add_row(Text(one_line(step_id)), Text(length), Text(kind), Text(digest), _free(name))

    return table


def _told(artifact: Artifact) -> tuple[str, str, str, str]:
    """Give a file's name, type, size, and the beginning of its digest."""
    kept = one_line(artifact.digest)[:_DIGEST_CHARS] if artifact.digest else "(only described)"
    return one_line(artifact.name, 200), one_line(artifact.media_type), size(artifact.size_bytes), kept


def tools(found: Sequence[Tool]) -> RenderableType:
    """Show tools, one a line."""
    provider = _provider_column(tool.provider for tool in found)
    table = _table("tool", *provider, "effect", "approval", "description")

    for tool in found:
        state = "" if tool.available else "(not available) "
        table.add_row(
            Text(one_line(tool.name)),
            *(Text(one_line(tool.provider)) for _ in provider),
            Text(_EFFECTS.get(tool.effect, "not idempotent")),
            Text("required" if tool.requires_approval else ""),
            _free(state + one_line(tool.description.split("\n\n", 1)[0], 200)),
        )

    return table


def _provider_column(providers: Iterable[str]) -> tuple[str, ...]:
    """Give the heading of the providers' column, if there is a provider to name."""
    return ("provider",) if any(providers) else ()


def tool(found: Tool, target: Target) -> RenderableType:
    """Show all of a tool; its examples as command lines for the server that is meant."""
    head = Table.grid(padding=(0, 2))
    policy = found.retry_policy
    facts = (
        ("effect", _EFFECTS.get(found.effect, "not idempotent")),
        ("approval", "required" if found.requires_approval else ""),
        ("timeout", duration(found.timeout)),
        ("attempts", f"at most {policy.max_attempts}" if policy and policy.max_attempts else ""),
        ("tags", ", ".join(map(one_line, found.tags))),
        ("provider", one_line(found.provider)),
        ("available", "" if found.available else "no: its provider is not there"),
        ("digest", one_line(found.digest)),
    )

    for name, value in facts:
        if value:
            head.add_row(Text(name, "dim"), Text(value))

    title = f"  {one_line(found.title)}" if found.title else ""
    parts: list[RenderableType] = [Text.assemble((one_line(found.name), "bold"), title), _indented(head)]

    if found.description:
        parts += [Text(), Text(clean(found.description))]

    for name, schema in (("input", found.input_schema), ("output", found.output_schema)):
        if schema:
            parts += [Text(), Text(f"{name} schema", "dim"), Text(_pretty_schema(schema))]

    for example in found.examples:
        # A tool that reads phrases says in an example's title what to ask for; of any other it is a title.
        heading = f"example: {one_line(example.title)}" if example.title and not found.phrases else "example"
        parts += [Text(), Text(heading, "dim"), *(Text(line) for line in _example(found, example, target))]

    if found.phrases:
        parts += [Text(), Text("phrases", "dim")]
        parts += [Text(f"{one_line(phrase.language)}  {one_line(phrase.pattern)}") for phrase in found.phrases]

    return Group(*parts)


def _example(found: Tool, example: ToolExample, target: Target) -> Iterator[str]:
    """Give the lines of an example: how to ask for it, how to call it, and what it gives."""
    asked = one_line(example.title, 500)
    if found.phrases and asked:
        yield waits.command(target, "run", *(["--"] if asked.startswith("-") else []), asked)

    if not found.requires_approval:  # a direct call cannot ask for it
        arguments = ["--args", plain_json(example.arguments)] if example.arguments else []
        yield waits.command(target, "call", found.name, *arguments)

    if example.output is not None:
        yield f"→ {plain_json(example.output)}"


def result(found: ToolResult) -> str:
    """Give the output of a direct call: a text as it is, all else as indented JSON."""
    output = found.output
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, sort_keys=True, indent=2)


def _facts(found: Plan) -> Iterator[tuple[str, str]]:
    options = found.options
    began = found.start_time or found.create_time
    took = found.end_time - began if began and found.end_time else None
    counts = found.step_counts
    facts = (
        ("request", one_line(found.request, 2000)),
        ("part of", f"step {found.parent.step_id} of plan {found.parent.plan_id}" if found.parent else ""),
        ("labels", ", ".join(f"{one_line(key)}={one_line(value)}" for key, value in sorted(found.labels.items()))),
        ("created", moment(found.create_time)),
        ("ended", moment(found.end_time)),
        ("took", duration(took)),
        ("by", one_line(found.principal)),
        ("steps", count(counts.total, "step") if counts and counts.total else ""),
        ("used", _used(found.usage)),
        ("planner", ", ".join(one_line(part) for part in (options.planner, options.model) if part) if options else ""),
        ("timeout", duration(options.timeout) if options else ""),
        ("sequence", str(found.sequence or "")),
    )
    return ((name, value) for name, value in facts if value)


def _used(usage: Usage | None) -> str:
    if usage is None:
        return ""

    parts = [count(usage.tool_calls, "tool call")] if usage.tool_calls else []

    if usage.model_calls:
        parts.append(count(usage.model_calls, "model call"))

    if usage.input_tokens or usage.output_tokens:
        parts.append(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens")

    return ", ".join(parts)


def _outcome(step: Step) -> str:
    match step.state:
        case StepState.SUCCEEDED:
            return one_line(value_text(step.result.output if step.result else None), OUTPUT_CHARS_MAX)

        case StepState.SKIPPED:
            return f"because of {one_line(step.skipped_by)}"

        case _ if step.failure is not None:
            return one_line(failure_line(step.failure), OUTPUT_CHARS_MAX)

        case _ if not step.state.terminal:
            after = f"after {', '.join(map(one_line, step.depends_on))}  " if step.depends_on else ""
            runs = f"plan {one_line(child_id(step))}  " if child_id(step) else ""
            return after + runs + one_line(plain_json(step.arguments or {}), OUTPUT_CHARS_MAX)

        case _:
            return ""


def _pretty_schema(schema: str) -> str:
    try:
        return plain_json(json.loads(schema), indent=2)
    except (ValueError, RecursionError):
        return clean(schema)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")

    for index, column in enumerate(columns):
        # Only the last column, free text, gives way on a narrow terminal: an id that is cut can be used for nothing.
        last = index == len(columns) - 1
        table.add_column(column, no_wrap=not last, overflow="ellipsis", min_width=None if last else 1)

    return table


def _free(text: str) -> Text:
    """Give the text of a table's last column: one line, cut where the terminal ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _indented(renderable: RenderableType) -> RenderableType:
    return Padding(renderable, (0, 0, 0, 2))
