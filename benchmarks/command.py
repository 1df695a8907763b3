"""The command: which rows to measure, how much, and what to write of them."""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks import catalog, codec, edge, growth, journal, makespan, peers, report, requests, standing, steps
from benchmarks.report import Run
from benchmarks.rows import Options, Row


async def model(options: Options) -> list[Row]:
    try:
        from benchmarks import llm_makespan  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        options.missing["model"] = f"{error}; it needs pip install -e '.[server,dev]'"
        return []

    return await llm_makespan.rows(options)


GROUPS: dict[str, tuple[str, Callable[[Options], Awaitable[list[Row]]]]] = {
    "steps": ("durable no-op steps a second over gRPC, watched; and how soon the watcher knows (latency)", steps.steps),
    "inprocess": ("durable no-op steps a second without gRPC and watchers", steps.in_process),
    "sequence": ("one plan of 100 steps in sequence", steps.sequence),
    "makespan": ("fan-out 1 -> 200 -> 1, uneven and random graphs", makespan.makespan),
    "submit": ("CreatePlan beside bare unary echo", edge.submit),
    "fanout": ("one plan's events to 64 watchers beside bare streaming of the same messages", edge.fanout),
    "watchers": ("1,000 and 5,000 idle watchers", standing.watchers),
    "startup": ("start to SERVING, and idle memory", standing.startup),
    "openplans": ("memory per open plan", standing.open_plans),
    "restart": ("restart with 10,000 open plans", standing.restart),
    "sdk": ("what the SDK costs per event", requests.sdk),
    "planner": ("the rules planner", requests.planner),
    "request": ("a request end to end", requests.request),
    "growth": ("how cost grows with steps, plans in the journal and watchers", growth.growth),
    "catalog": ("how cost grows with tools", catalog.rows),
    "codec": ("the codec beside protobuf alone", codec.rows),
    "journal": ("the journal beside bare SQLite", journal.rows),
    "model": ("plans that a model writes beside their lower bound; needs the extras llm and dev", model),
    "peers": (
        "DBOS, LangGraph, Restate and Prefect with the same work; only when it is named, or with --peers-dir",
        peers.peers,
    ),
}
PARTS = {"latency": "steps"}
"""Rows that another group measures."""


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and print each figure beside its limit. See docs/performance.md.",
    )
    flags.add_argument(
        "names", nargs="*", metavar="NAME", help="a group, or the beginning of a row's name; all without"
    )
    flags.add_argument("--list", action="store_true", help="print the groups and end")
    flags.add_argument(
        "--quick", action="store_true", help="two rounds of small sizes: for development, not for claims"
    )
    flags.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 2)")
    flags.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    flags.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios there")
    flags.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the table there; in docs/performance.md between its marks"
    )
    flags.add_argument(
        "--data-dir", metavar="DIR", help="where journals are written (the temporary folder): choose the disk"
    )
    flags.add_argument(
        "--peers-dir",
        metavar="DIR",
        help="where the peers' environments are kept (the temporary folder); with it all includes the peers",
    )
    return flags


def chosen(names: list[str], *, peers_too: bool = False) -> dict[str, tuple[str, ...]]:
    """Give the groups to run, each with the rows that are wanted of it; without names all, with ``peers_too`` the peers as well.

    Raises:
        ValueError: a name is none.
    """
    if not names:
        return dict.fromkeys((name for name in GROUPS if peers_too or name != "peers"), ())

    groups: dict[str, tuple[str, ...]] = {}

    for name in names:
        first = name.partition(".")[0]
        group = PARTS.get(first, first)
        if group not in GROUPS:
            raise ValueError(f"{name!r} is no benchmark; there are {', '.join([*GROUPS, *PARTS])}")

        groups[group] = (*groups.get(group, ()), name)

    return groups


def main() -> int:
    given = parser().parse_args()

    if given.list:
        for name, (what, _) in GROUPS.items():
            print(f"{name:12}{what}")

        return 0

    try:
        groups = chosen(given.names, peers_too=given.peers_dir is not None)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2

    rounds = given.rounds or (2 if given.quick else 5)
    without = tuple(name for name in GROUPS if name not in groups)
    rows: list[Row] = []
    missing: dict[str, str] = {}
    failed = []
    began = time.perf_counter()
    gc.freeze()

    def run() -> Run:
        return Run(given.quick, rounds, time.perf_counter() - began, tuple(given.names), without, missing)

    for name, only in groups.items():
        report.say(f"{name} …")
        since, known = time.perf_counter(), len(missing)
        peers_dir = given.peers_dir or tempfile.gettempdir()
        options = Options(given.quick, only, rounds, peers_dir, given.data_dir, missing)

        try:
            rows += uvloop.run(GROUPS[name][1](options))  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the boundary of a group: the others are measured all the same
            failed.append(name)
            missing[name] = f"{type(error).__name__}: {error}"

        for what, why in list(missing.items())[known:]:
            report.say(f"{what}: NOT MEASURED: {why}")

        report.say(f"{name}: {time.perf_counter() - since:.0f} s")

        if given.json:
            report.save_json(given.json, rows, run())

    print(run().told())
    print(" · ".join(f"{name} {each}" for name, each in report.conditions().items()))
    print(report.table(rows))

    if given.plot and rows:
        report.save_plot(given.plot, rows)

    if given.markdown:
        report.save_markdown(given.markdown, rows, run())

    if failed:
        print(f"benchmarks: FAILED: {', '.join(failed)}", file=sys.stderr)

    return 1 if failed else 0
