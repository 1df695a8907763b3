"""Real servers on one data directory and one port, that are killed, frozen and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
EFFECTS: Final = Path(__file__).parent / "effects.py"
START_SECONDS: Final = 60.0


class Life:
    """The lives of a server: one process at a time."""

    def __init__(
        self, folder: Path, *, traps: str = "tests.reliability.launcher", environment: Mapping[str, str] | None = None
    ) -> None:
        """``traps`` is the module that starts a process with a trap in it, ``environment`` what is added to its variables."""
        self.folder = folder
        self._traps = traps
        self._environment = dict(environment or {})
        self.data_dir = folder / "data"
        self.address = ""
        self.popen: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"

    async def begin(self, *trap: str, flags: tuple[str, ...] = ()) -> None:
        """Start a process, and wait until it serves or is dead already (a trap may be in its start)."""
        (self.data_dir / "server.json").unlink(missing_ok=True)
        self.popen = self.start(*trap, flags=flags)
        end = asyncio.get_running_loop().time() + START_SECONDS
        while not (self.data_dir / "server.json").exists():
            if self.popen.poll() is not None:
                if not trap:
                    raise RuntimeError(f"the server ended at its start: {self._log.read_text()[-2000:]}")

                return

            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"the server did not start: {self._log.read_text()[-2000:]}")

            await asyncio.sleep(0.02)

        self.address = str(json.loads((self.data_dir / "server.json").read_text())["address"])

    def start(self, *trap: str, flags: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a process, whatever becomes of it."""
        module = self._traps if trap else "autoglm_server"
        port = self.address.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", module, *trap, "--data-dir", str(self.data_dir), "--port", port]
        command += ["--provider", f"ledger=python:{EFFECTS}", "--log-level", "warning", *flags]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM_")} | self._environment
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=kept, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    async def kill(self) -> None:
        """End the process as the kernel does."""
        if self.popen is not None:
            self.popen.kill()
            await self.died()

    async def died(self) -> int:
        assert self.popen is not None
        return await asyncio.to_thread(self.popen.wait)

    async def stop(self) -> int:
        """Let it end by itself."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)
        return await self.died()

    def signal(self, number: signal.Signals) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)
