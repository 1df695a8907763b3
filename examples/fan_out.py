"""Write examples/plans/fan_out.yaml: one step, then WIDTH in parallel that each use its output, then one that needs them all.

python examples/fan_out.py [WIDTH] > examples/plans/fan_out.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

WIDTH = 200


def lines(width: int) -> Iterator[str]:
    """Give the plan's lines."""
    yield f"# One step, then {width} in parallel, then one that sums them up. Written by examples/fan_out.py."
    yield "#"
    yield "#   autoglm run --plan examples/plans/fan_out.yaml"
    yield "labels: {example: fan_out}"
    yield "steps:"
    yield '  - {id: base, tool: math.calculate, arguments: {expression: "10 ^ 3"}}'
    names = [f"part_{number:0{len(str(width))}}" for number in range(1, width + 1)]

    for number, name in enumerate(names, 1):
        yield f'  - {{id: {name}, tool: math.calculate, arguments: {{expression: "${{base.result}} + {number}"}}}}'

    yield "  - id: total"
    yield "    tool: json.query"
    yield "    arguments:"
    yield "      query: sum(@)"
    yield "      data:"

    for name in names:
        yield f'        - "${{{name}.result}}"'


if __name__ == "__main__":
    print("\n".join(lines(int(sys.argv[1]) if len(sys.argv) > 1 else WIDTH)))
