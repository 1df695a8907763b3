"""The floor: the least a server with our guarantees can be, and what the transport and the journal alone allow.

``python -m benchmarks.floor PORT DIRECTORY``. One process: a DAG runner, SQLite in WAL mode with synchronous=FULL written by one
thread that commits what gathered during the commit before, and a grpc.aio server on uvloop. A step is a "started" event
(journaled, not awaited) and a "succeeded" event (awaited durable before what depends on it may start). Events reach watchers only
after their commit, as the bytes that were journaled; a message carries what has gathered. There is no recovery, no retry, no
validation, no time limit, no authentication: it is no product, it says how fast one could be.

Beside that it answers bare calls: Echo (unary), Send (streams the given messages), Idle (a stream that says nothing).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

BATCH_MAX = 512
PAYLOAD = b'{"status":200,"bytes":51234,"sha":"9f86d081884c7d65"}'
EVERYTHING = -1
SERVICE = "benchmarks.Floor"


def _messages() -> tuple[Any, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="benchmarks/floor.proto", package="benchmarks", syntax="proto3")
    event = file.message_type.add(name="Event")
    kinds = {"seq": field.TYPE_INT64, "ts_us": field.TYPE_INT64, "payload": field.TYPE_BYTES}

    for number, name in enumerate(("seq", "ts_us", "run_id", "step_id", "kind", "tool", "payload"), 1):
        kind = kinds.get(name, field.TYPE_STRING)
        event.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)

    entry = event.nested_type.add(name="AttrsEntry")
    entry.options.map_entry = True

    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)

    many, message = field.LABEL_REPEATED, field.TYPE_MESSAGE
    event.field.add(name="attrs", number=8, type=message, label=many, type_name=".benchmarks.Event.AttrsEntry")
    batch = file.message_type.add(name="Batch")
    batch.field.add(name="events", number=1, type=message, label=many, type_name=".benchmarks.Event")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmarks.{name}")) for name in ("Event", "Batch")
    ]
    return made[0], made[1]


Event, Batch = _messages()


class Journal:
    """What has gathered during one commit is the next batch."""

    def __init__(self, directory: Path, on_commit: Any) -> None:
        self.db = sqlite3.connect(directory / "floor.db", isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE ev(id INTEGER PRIMARY KEY, run_id INT, seq INT, body BLOB)")
        self.db.execute("CREATE UNIQUE INDEX i ON ev(run_id, seq)")
        self.queue: queue.SimpleQueue[tuple[int, int, bytes, asyncio.Future[None] | None] | None] = queue.SimpleQueue()
        self.loop = asyncio.get_running_loop()
        self.on_commit = on_commit
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def put(self, run: int, seq: int, event: Any, *, wait: bool) -> asyncio.Future[None] | None:
        future = self.loop.create_future() if wait else None
        self.queue.put((run, seq, event.SerializeToString(), future))
        return future

    def run(self) -> None:
        while (first := self.queue.get()) is not None:
            batch = [first]

            with contextlib.suppress(queue.Empty):
                while len(batch) < BATCH_MAX:
                    one = self.queue.get_nowait()
                    if one is None:
                        self.queue.put(None)
                        break

                    batch.append(one)

            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT INTO ev(run_id, seq, body) VALUES(?,?,?)", [row[:3] for row in batch])
            self.db.execute("COMMIT")
            self.loop.call_soon_threadsafe(self.on_commit, batch)

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join()
        self.db.close()


class Watcher:
    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.wake = asyncio.Event()


class Floor:
    def __init__(self, directory: Path) -> None:
        self.watchers: defaultdict[int, list[Watcher]] = defaultdict(list)
        self.journal = Journal(directory, self.committed)
        self.messages: list[bytes] = []

    def committed(self, batch: Sequence[tuple[int, int, bytes, asyncio.Future[None] | None]]) -> None:
        woken: dict[Watcher, None] = {}

        for run, _, body, future in batch:
            if future is not None:
                future.set_result(None)

            for key in (run, EVERYTHING):
                for watcher in self.watchers.get(key, ()):
                    watcher.events.append(body)
                    woken[watcher] = None

        for watcher in woken:
            watcher.wake.set()

    async def watch(self, request: bytes, context: Any) -> None:
        """Send a run's events, or all runs'; they are concatenated as they were journaled."""
        watcher, key = Watcher(), int(request)
        self.watchers[key].append(watcher)
        await context.write(b"")

        try:
            while True:
                await watcher.wake.wait()
                watcher.wake.clear()
                events, watcher.events = watcher.events, []
                if not events:
                    continue

                await context.write(joined(events))
        finally:
            self.watchers[key].remove(watcher)

    async def step(self, run: int, counter: list[int], name: str, seconds: float) -> None:
        counter[0] += 1
        self.journal.put(run, counter[0], event(run, counter[0], name, "step.started"), wait=False)
        if seconds:
            await asyncio.sleep(seconds)

        counter[0] += 1
        done = self.journal.put(run, counter[0], event(run, counter[0], name, "step.succeeded"), wait=True)
        assert done is not None
        await done

    async def chain(self, run: int, shape: dict[str, Any]) -> None:
        counter = [0]

        for name in shape:
            await self.step(run, counter, name, 0.0)

    async def graph(self, run: int, shape: dict[str, Any]) -> None:
        counter = [0]
        left = {name: len(parents) for name, (_, parents) in shape.items()}
        children: dict[str, list[str]] = {name: [] for name in shape}

        for name, (_, parents) in shape.items():
            for parent in parents:
                children[parent].append(name)

        async with asyncio.TaskGroup() as group:

            async def go(name: str) -> None:
                await self.step(run, counter, name, shape[name][0])

                for child in children[name]:
                    left[child] -= 1
                    if not left[child]:
                        group.create_task(go(child))

            for name in [name for name, missing in left.items() if not missing]:
                group.create_task(go(name))

    async def go(self, request: bytes, _: Any) -> bytes:
        """Run the given shape as often as asked, all at once; gives the seconds it took."""
        asked = json.loads(request)
        shape = asked["shape"]
        work = self.graph if asked["graph"] else self.chain
        began, used = time.perf_counter(), time.process_time()

        async with asyncio.TaskGroup() as group:
            for number in range(asked["plans"]):
                group.create_task(work(asked["first"] + number, shape))

        return json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}).encode()

    async def take(self, request: bytes, _: Any) -> bytes:
        """Keep a message to be sent by `send`; an empty one drops them all."""
        if request:
            self.messages.append(request)
        else:
            self.messages.clear()

        return b""

    async def send(self, request: bytes, context: Any) -> None:
        """Send the kept messages, as often as asked."""
        for _ in range(int(request)):
            for message in self.messages:
                await context.write(message)

    async def idle(self, _: bytes, context: Any) -> None:
        await context.write(b"")
        await asyncio.Event().wait()

    async def echo(self, request: Any, _: Any) -> Any:
        return request


def joined(events: Sequence[bytes]) -> bytes:
    """Write a Batch: field 1, with the length of each."""
    out = bytearray()

    for body in events:
        size = len(body)
        out.append(0x0A)

        while size > 127:
            out.append(size & 127 | 128)
            size >>= 7

        out.append(size)
        out += body

    return bytes(out)


def event(run: int, seq: int, step: str, kind: str) -> Any:
    """Make an event of 154 bytes or so."""
    return Event(
        seq=seq,
        ts_us=time.time_ns() // 1000,
        run_id=f"01J9ZK3V6W8Q4T2N5M7X{run:06d}",
        step_id=step,
        kind=kind,
        tool="noop",
        payload=PAYLOAD,
        attrs={"attempt": "1", "worker": "w-3"},
    )


@contextlib.asynccontextmanager
async def serving(port: int, directory: Path) -> AsyncIterator[grpc.aio.Server]:
    floor, server = Floor(directory), grpc.aio.server()
    raw, decoded = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
    methods = {
        "Watch": raw(floor.watch),
        "Send": raw(floor.send),
        "Idle": raw(floor.idle),
        "Go": decoded(floor.go),
        "Take": decoded(floor.take),
        "Echo": decoded(floor.echo, Event.FromString, Event.SerializeToString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()

    try:
        yield server
    finally:
        await server.stop(0.2)
        floor.journal.close()


async def main(port: int, directory: Path) -> None:
    async with serving(port, directory) as server:
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2])))
