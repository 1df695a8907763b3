"""Steps a second, steps in sequence, and how soon a watcher knows: the product and the floor, turn and turn about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.load import FloorLoad, ProductLoad, Seen, Streams, quantile
from benchmarks.processes import child, floor, product
from benchmarks.rows import Aim, Options, Row, at_least, at_most
from benchmarks.shapes import chain


@dataclass(frozen=True, slots=True)
class Case:
    """Plans in flight, each a chain of no-ops."""

    name: str
    plans: int
    steps: int
    quick: int
    """Steps when it must be quick."""
    streams: Streams = "one"
    tool: str = "noop"
    aim: Aim | None = None
    note: str = ""

    @property
    def what(self) -> str:
        watched = {
            "one": "one stream of everything",
            "each": f"{self.plans} streams on one connection",
            "none": "not watched",
        }
        return f"{at_once(self.plans)}, {watched[self.streams]}"


def at_once(plans: int) -> str:
    return f"{plans} plans at once" if plans > 1 else "one plan"


CASES = (
    Case("steps.1", 1, 400, 100),
    Case("steps.8", 8, 200, 50),
    Case("steps.64", 64, 200, 50, aim=at_least(0.2, 0.65)),
    Case("steps.64.each", 64, 200, 50, streams="each", aim=at_least(0.125, 0.4)),
    Case(
        "steps.64.large", 64, 200, 50, tool="large", aim=at_least(0.1, 0.3), note="1 kB outputs, arguments of 10 keys"
    ),
    Case("steps.64.read_only", 64, 200, 50, tool="read", note="calls that need not wait for the disk; the floor's do"),
    Case("steps.512", 512, 40, 10),
)
FLOOR_IS = "steps/s of the floor"


class Loads:
    """A fresh product and a fresh floor, warm, each with a client's connection."""

    def __init__(self, options: Options, **settings: str) -> None:
        self._stack = AsyncExitStack()
        self._under = options.data_dir
        self._settings = settings

    async def __aenter__(self) -> tuple[ProductLoad, FloorLoad]:
        enter = self._stack.enter_async_context

        try:
            ours, bare = await enter(product(self._under, **self._settings)), await enter(floor(self._under))
            loads = ProductLoad(ours, await enter(ours.channel())), FloorLoad(bare, await enter(bare.channel()))

            for _ in range(4):
                await loads[0].run(chain(10), 1)
                await loads[1].run(chain(10), 1)
        except BaseException:
            await self._stack.aclose()
            raise

        return loads

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def turns(
    number: int, ours: Callable[[], Awaitable[Seen]], limit: Callable[[], Awaitable[Seen]]
) -> tuple[Seen, Seen]:
    """Measure both, one right after the other; who is first changes with each round."""
    if number % 2:
        bare = await limit()
        return await ours(), bare

    return await ours(), await limit()


async def steps(options: Options) -> list[Row]:
    cases = [
        case for case in CASES if options.wanted(case.name) or (case.name == "steps.64" and options.wanted("latency"))
    ]
    found: defaultdict[str, list[tuple[Seen, Seen]]] = defaultdict(list)

    for number in range(options.rounds if cases else 0):
        async with Loads(options) as (ours, bare):
            for case in cases:
                shape = chain(case.quick if options.quick else case.steps)
                pair = await turns(
                    number,
                    lambda case=case, shape=shape: ours.run(shape, case.plans, case.streams, tool=case.tool),  # type: ignore[misc]
                    lambda case=case, shape=shape: bare.run(shape, case.plans, case.streams),  # type: ignore[misc]
                )
                found[case.name].append(pair)

    rows = [_row(case, found[case.name]) for case in cases]

    if full := found.get("steps.64"):
        for part, aim in ((0.5, None), (0.99, at_most(4, 2))):
            rows.append(
                Row(
                    f"latency.p{part * 100:g}",
                    "ms",
                    [quantile(seen.latencies, part) * 1e3 for seen, _ in full],
                    [quantile(seen.latencies, part) * 1e3 for _, seen in full],
                    "the floor, each under its own full load",
                    aim,
                    "event built -> received by the watcher of everything, 64 plans at once",
                )
            )

    return [row for row in rows if options.wanted(row.name)]


def _row(case: Case, pairs: list[tuple[Seen, Seen]]) -> Row:
    def each(seen: Seen) -> dict[str, float]:
        return {
            "cpu_us_per_step": seen.cpu / seen.steps * 1e6,
            "events_per_step": seen.events / seen.steps,
            "events_per_message": seen.events / max(seen.messages, 1),
        }

    return Row(
        case.name,
        "steps/s",
        [seen.rate for seen, _ in pairs],
        [seen.rate for _, seen in pairs],
        FLOOR_IS,
        case.aim,
        "; ".join(part for part in (case.what, case.note) if part),
        {"product": each(pairs[-1][0]), "floor": each(pairs[-1][1])},
    )


async def in_process(options: Options) -> list[Row]:
    """The same without gRPC and without watchers, beside the floor without watchers."""
    rows = []

    for plans, many, few in ((1, 400, 100), (8, 200, 50), (64, 200, 50), (512, 40, 10)):
        name, count = f"inprocess.{plans}", few if options.quick else many
        if not options.wanted(name):
            continue

        values, limits, used = [], [], 0.0

        for _ in range(options.rounds):
            mine = await child("inprocess", {"plans": plans, "steps": count, "under": options.data_dir})
            values.append(plans * count / mine["seconds"])
            used = mine["cpu"] / (plans * count) * 1e6

            async with floor(options.data_dir) as served, served.channel() as channel:
                bare = FloorLoad(served, channel)
                await bare.run(chain(10), 4, "none")
                limits.append((await bare.run(chain(count), plans, "none")).rate)

        note = f"{at_once(plans)}, not watched, no gRPC"
        rows.append(Row(name, "steps/s", values, limits, FLOOR_IS, note=note, details={"cpu_us_per_step": used}))

    return rows


async def sequence(options: Options) -> list[Row]:
    """One plan of 100 steps, one after the other, watched."""
    repeat, pairs = 1 if options.quick else 3, []

    for number in range(options.rounds):
        async with Loads(options) as (ours, bare):
            for _ in range(repeat):
                pairs.append(await turns(number, lambda: ours.run(chain(100), 1), lambda: bare.run(chain(100), 1)))

    return [
        Row(
            f"sequence.p{part * 100:g}",
            "ms",
            [quantile(seen.gaps, part) * 1e3 for seen, _ in pairs],
            [quantile(seen.gaps, part) * 1e3 for _, seen in pairs],
            "the floor",
            aim,
            "from the start of one step to the start of the next",
        )
        for part, aim in ((0.5, at_most(2, 1.3)), (0.99, None))
        if options.wanted(f"sequence.p{part * 100:g}")
    ]
