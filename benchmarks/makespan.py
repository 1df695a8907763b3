"""How long plans of a given shape take: fan-out beside the floor, uneven graphs beside their critical paths."""

from __future__ import annotations

from benchmarks.load import Seen
from benchmarks.rows import Options, Row, at_most
from benchmarks.shapes import critical_path, fan, random_layers, two_chains
from benchmarks.steps import Loads, turns


async def makespan(options: Options) -> list[Row]:
    shapes = {"makespan.fan": fan(200), "makespan.uneven": two_chains(), "makespan.random": random_layers()}
    shapes = {name: shape for name, shape in shapes.items() if options.wanted(name)}
    found: dict[str, list[tuple[Seen, Seen]]] = {name: [] for name in shapes}

    for number in range(options.rounds):
        async with Loads(options) as (ours, bare):
            for name, shape in shapes.items():
                pair = await turns(
                    number,
                    lambda shape=shape: ours.run(shape, 1),  # type: ignore[misc]
                    lambda shape=shape: bare.run(shape, 1, graph=True),  # type: ignore[misc]
                )
                found[name].append(pair)

    rows = []

    for name, pairs in found.items():
        values, floors = [seen.seconds * 1e3 for seen, _ in pairs], [seen.seconds * 1e3 for _, seen in pairs]
        path = critical_path(shapes[name]) * 1e3

        if name == "makespan.fan":
            note = f"1 -> 200 x 50 ms -> 1; critical path {path:.0f} ms"
            rows.append(Row(name, "ms", values, floors, "the floor", at_most(1.2, 1.1), note))
        else:
            notes = {
                "makespan.uneven": "two chains of 10, 90 and 10 ms in turn",
                "makespan.random": "100 steps of 5-60 ms",
            }
            ratios = sorted(each / path for each in floors)
            details = {"floor_ratio": ratios[len(ratios) // 2]}
            rows.append(
                Row(
                    name,
                    "ms",
                    values,
                    [path] * len(values),
                    "its critical path",
                    at_most(1.05, 1.03),
                    notes[name],
                    details,
                )
            )

    return rows
