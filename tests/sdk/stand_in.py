"""What local.py starts in its tests instead of a server: the protocol of docs/adr/0031, and the faults a start can have.

It is a program. Its data directory may hold `behave`: `die`, `hang` (never serves), `held` (ends as if the lock were held); and
`busy`, whose presence means that a plan runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm import __version__
from autoglm.v1 import plan_pb2, plan_service_pb2, plan_service_pb2_grpc


def main() -> None:
    signal.alarm(60)  # one that starts when its test is over already is not left behind
    flags = argparse.ArgumentParser()
    flags.add_argument("--embedded", action="store_true")
    flags.add_argument("--data-dir", type=Path)
    flags.add_argument("--fingerprint")
    given, _ = flags.parse_known_args()
    folder: Path = given.data_dir
    behave = (folder / "behave").read_text() if (folder / "behave").exists() else ""

    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")

    if behave == "die":
        sys.exit("the journal is broken")

    if behave == "hang":
        threading.Event().wait()

    lock = (folder / "lock").open("w")

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(75)

    serve(folder, given.fingerprint)


def serve(folder: Path, fingerprint: str) -> None:
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    server = grpc.server(ThreadPoolExecutor(16))
    socket = folder / "s"
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix://{socket}")
    health_pb2_grpc.add_HealthServicer_to_server(Health(done), server)
    plan_service_pb2_grpc.add_PlanServiceServicer_to_server(Plans(folder), server)  # type: ignore[arg-type]
    server.start()
    said = {
        "address": f"unix://{socket}",
        "pid": os.getpid(),
        "version": __version__,
        "embedded": True,
        "fingerprint": fingerprint,
        "started": "2026-01-01T00:00:00Z",
    }
    (folder / "fresh").write_text(json.dumps(said))
    (folder / "fresh").replace(folder / "server.json")
    done.wait()
    (folder / "server.json").unlink()
    server.stop(grace=None).wait()


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def Check(self, request: Any, context: Any) -> Any:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    def Watch(self, request: Any, context: Any) -> Any:
        yield self.Check(request, context)
        gone = threading.Event()
        context.add_callback(gone.set)

        while not gone.wait(0.05) and not self._done.is_set():
            pass


class Plans:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

    def ListPlans(self, request: Any, context: Any) -> Any:
        busy = (self._folder / "busy").exists() and plan_pb2.PLAN_STATE_RUNNING in request.states
        return plan_service_pb2.ListPlansResponse(
            plans=[plan_pb2.Plan(id="p", state=plan_pb2.PLAN_STATE_RUNNING)] * busy
        )

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return plan_service_pb2.GetServerInfoResponse(version=str(os.getpid()))


if __name__ == "__main__":
    main()
