"""The same work on other engines, each in an environment of its own: ``python -m benchmarks peers [peers.dbos …]``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import FloorLoad, ProductLoad, Seen, quantile
from benchmarks.processes import folder, leash
from benchmarks.report import say
from benchmarks.rows import Options, Row
from benchmarks.shapes import chain, fan
from benchmarks.steps import Loads

INSTALL_SECONDS = 600.0
RUN_SECONDS = 150.0
ROUNDS = 3
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer and its variants; each is a round's run of ``run_NAME.py``."""

    name: str
    packages: tuple[str, ...]
    variants: tuple[str, ...]
    npm: str = ""
    binary: str = ""
    """Of the npm package, below the peer's folder; given to the script in place of a variant."""
    plans: int = 64
    steps: int = 20


PEERS = (
    Peer("dbos", ("dbos",), ("plain", "wal")),
    Peer("langgraph", ("langgraph", "langgraph-checkpoint-sqlite"), ("graph", "functions")),
    Peer(
        "restate",
        ("restate-sdk[serde]", "hypercorn", "httpx"),
        ("server",),
        npm="@restatedev/restate-server-linux-x64",
        binary="node_modules/@restatedev/restate-server-linux-x64/bin/restate-server",
    ),
    # With the newest fastapi its server does not import.
    Peer("prefect", ("prefect", "fastapi==0.139.*", "starlette<1.1"), ("server",), plans=4, steps=5),
)


class NotThereError(Exception):
    """A peer cannot be installed or run here; the message says why."""


async def peers(options: Options) -> list[Row]:
    """Measure every peer that can be installed, the product and the floor, in each round one after the other."""
    ready: dict[str, tuple[Peer, Path]] = {}  # by PEER.VARIANT

    for peer in PEERS:
        if not options.wanted(f"peers.{peer.name}"):
            continue

        try:
            home = await installed(peer, Path(options.peers_dir))
        except NotThereError as error:
            options.missing[f"peers.{peer.name}"] = str(error)
        else:
            ready |= {f"{peer.name}.{variant}": (peer, home) for variant in peer.variants}

    found: defaultdict[str, list[tuple[dict[str, float], dict[str, float]]]] = defaultdict(list)
    notes: dict[str, str] = {}

    for _ in range(min(options.rounds, ROUNDS)):
        async with Loads(options) as (ours, bare):
            limit = await _own(bare)
            found["autoglm"].append((await _own(ours), limit))

        for variant, (peer, home) in list(ready.items()):
            try:
                told = await _run(peer, home, variant.partition(".")[2], options.data_dir)
            except NotThereError as error:
                options.missing[f"peers.{variant}"] = str(error)
                del ready[variant]  # it would take as long the next time
                continue

            notes[variant] = str(told.pop("note"))
            found[variant].append(({key: float(str(value)) for key, value in told.items()}, limit))

    for name in found:
        options.missing.pop(f"peers.{name}", None)  # it failed in a later round

    return [
        Row(
            f"peers.{name}.{key}",
            unit,
            [value[key] for value, _ in pairs],
            [limit[key] for _, limit in pairs],
            "the floor, 64 plans of 20" if key == "steps" else "the floor",
            note=f"{_what(name, key)}; {notes.get(name, 'watched')}",
        )
        for name, pairs in found.items()
        for key, unit in (("steps", "steps/s"), ("p50", "ms"), ("fan", "ms"))
    ]


def _what(name: str, key: str) -> str:
    peer = next((peer for peer in PEERS if peer.name == name.partition(".")[0]), PEERS[0])
    what = {"steps": f"{peer.plans} plans of {peer.steps} no-ops at once", "p50": "a step in sequence"}
    return what.get(key, "1 -> 200 x 50 ms -> 1")


async def _own(load: ProductLoad | FloorLoad) -> dict[str, float]:
    async def run(shape: dict[str, tuple[float, tuple[str, ...]]], plans: int) -> Seen:
        if isinstance(load, FloorLoad):
            return await load.run(shape, plans, graph="root" in shape)

        return await load.run(shape, plans)

    gaps = (await run(chain(100), 1)).gaps + (await run(chain(100), 1)).gaps
    fans = [(await run(fan(200), 1)).seconds for _ in range(2)]
    rate = (await run(chain(20), 64)).rate
    return {"steps": rate, "p50": quantile(gaps, 0.5) * 1e3, "fan": min(fans) * 1e3}


async def installed(peer: Peer, under: Path) -> Path:
    """Make the peer's environment unless it is there; gives its folder.

    Raises:
        NotThereError: it cannot be made.
    """
    home = under / f"autoglm-peer-{peer.name}"
    done = home / "installed"

    if not done.exists():
        say(f"peers.{peer.name}: installing {' '.join(peer.packages)} in {home} …")
        await _tool(sys.executable, "-m", "venv", str(home))
        await _tool(str(home / "bin/python"), "-m", "pip", "install", "-q", *peer.packages)

        if peer.npm:
            await _tool("npm", "install", "--silent", "--prefix", str(home), "--ignore-scripts", peer.npm)

        done.touch()

    return home


async def _tool(*command: str) -> None:
    await _output(command, INSTALL_SECONDS, dict(os.environ))


async def _run(peer: Peer, home: Path, variant: str, under: str | None) -> dict[str, object]:
    argument = str(home / peer.binary) if peer.binary else variant
    command = [str(home / "bin/python"), str(HERE / f"run_{peer.name}.py"), argument]

    async with folder(under) as directory:  # the disk that the product writes to, and cleared by who outlives the peer
        work = {"PEER_PLANS": str(peer.plans), "PEER_STEPS": str(peer.steps), "TMPDIR": str(directory)}
        ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        variables = {name: value for name, value in os.environ.items() if name not in ours} | work
        out = await _output(command, RUN_SECONDS, variables)

    for line in out.splitlines():
        if line.startswith("RESULT "):
            told: dict[str, object] = json.loads(line.removeprefix("RESULT "))
            return told

    raise NotThereError("it told no result")


async def _output(command: tuple[str, ...] | list[str], seconds: float, variables: dict[str, str]) -> str:
    pipe = asyncio.subprocess.PIPE

    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=variables, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise NotThereError(f"{Path(command[0]).name}: {error.strerror}") from None

    leash.hold(process.pid)

    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise NotThereError(f"{Path(command[0]).name} took longer than {seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started, also when it has ended itself

        await process.wait()
        leash.release(process.pid)

    if process.returncode:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise NotThereError(f"{Path(command[0]).name} ended with {process.returncode}: {last[0][:300]}")

    return out.decode(errors="replace")
