"""Turns TaskBench's files into requests for `autoglm bench plan`, and its tools into a provider that plans can call.

    python benchmarks/taskbench.py data.json tool_desc.json requests.jsonl tools.py
    autoglm bench plan requests.jsonl --provider t=python:tools.py --model ollama:qwen3:8b

Reads `data.json` (an object a line: `id`, `user_request` or `instruction`, `task_nodes`, `task_links`; lists may be JSON text, as
TaskBench has them) and `tool_desc.json` (`nodes`, each with `id`, `desc`, `parameters`). An argument `<node-1>` becomes the
reference `${s1}`; an argument without a name is called by its place. The tools give the name of what they would have made, since
plans are scored, not results.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

PREFIX = "t"
"""What the provider is to be called."""
_NODE = re.compile(r"<node-(\d+)>")
_NAME = re.compile(r"[^a-z0-9]+")


def tool_name(text: str) -> str:
    return _NAME.sub("_", text.lower()).strip("_") or "tool"


def requests(lines: list[str], tools: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Give the requests with their plans; what has a tool that is not described is left out."""
    found = []

    for line in lines:
        if not line.strip():
            continue

        said = json.loads(line)
        nodes, links = _list(said["task_nodes"]), _list(said.get("task_links", []))

        if any(node["task"] not in tools for node in nodes):
            continue

        found.append(
            {
                "id": str(said["id"]),
                "request": said.get("user_request") or said["instruction"],
                "steps": [_step(number, node, nodes, links, tools) for number, node in enumerate(nodes)],
            }
        )

    return found


def _list(value: Any) -> list[Any]:
    return list(json.loads(value)) if isinstance(value, str) else list(value)


def _step(
    number: int,
    node: dict[str, Any],
    nodes: list[dict[str, Any]],
    links: list[dict[str, str]],
    tools: dict[str, list[str]],
) -> dict[str, Any]:
    places = tools[node["task"]]
    arguments: dict[str, Any] = {}

    for place, given in enumerate(node.get("arguments", [])):
        if isinstance(given, dict):
            name, value = tool_name(str(given["name"])), given["value"]
        else:
            name, value = places[place] if place < len(places) else f"input{place}", given

        arguments[name] = _NODE.sub(r"${s\1}", value) if isinstance(value, str) else value

    sources = {link["source"] for link in links if link["target"] == node["task"]}
    return {
        "id": f"s{number}",
        "tool": f"{PREFIX}.{tool_name(node['task'])}",
        "arguments": arguments,
        "depends_on": [f"s{other}" for other, one in enumerate(nodes) if one["task"] in sources and other != number],
    }


def parameters(description: dict[str, Any]) -> dict[str, list[str]]:
    """Give each tool's parameters: the described ones, or one for each of its inputs."""
    return {
        node["id"]: [tool_name(one["name"]) for one in node.get("parameters") or []]
        or [f"input{place}" for place, _ in enumerate(node.get("input-type") or [])]
        for node in description["nodes"]
    }


def provider(description: dict[str, Any]) -> str:
    """Write the tools as Python; names and texts of the file stand in it as literals alone."""
    names = parameters(description)
    lines = [
        '"""Tools of TaskBench: each gives the name of what it would have made."""',
        "",
        "import autoglm",
        "from autoglm import Effect",
    ]

    for node in description["nodes"]:
        arguments = ", ".join(f"{name}: str = ''" for name in names[node["id"]])
        name, told = tool_name(node["id"]), str(node.get("desc") or node["id"])
        lines += [
            "",
            "",
            f"@autoglm.tool(name={name!r}, description={told!r}, effect=Effect.READ_ONLY)",
            f"def tool_{name}({arguments}) -> str:",
            f"    return {f'made by {name}'!r}",
        ]

    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    if len(arguments) != 4:
        print(__doc__, file=sys.stderr)
        return 2

    data, described, out, tools = map(Path, arguments)
    description = json.loads(described.read_text(encoding="utf-8"))
    found = requests(data.read_text(encoding="utf-8").splitlines(), parameters(description))
    out.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), encoding="utf-8")
    tools.write_text(provider(description), encoding="utf-8")
    print(f"{len(found)} requests in {out}, {len(description['nodes'])} tools in {tools}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
