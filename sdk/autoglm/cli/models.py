"""Asks the installed server which planner it would use, which models it has a key for, and whether anything serves its model."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from autoglm.cli.text import one_line
from autoglm.model import JsonObject

COMMAND = (sys.executable, "-P", "-m", "autoglm_server.planners")
SECONDS_MAX = 20.0
FOUND_MAX = 5
CONNECT_TIMEOUT = 3.0


def ask(environment: Mapping[str, str]) -> JsonObject | None:
    """Give what the server says, None if it cannot be asked."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module; there is no shell
            COMMAND, env=dict(environment), capture_output=True, timeout=SECONDS_MAX, check=True, text=True
        )
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None

    return said if isinstance(said, dict) else None


def unreachable(said: JsonObject) -> str:
    """Say why nothing can be reached where the model is served; empty if something accepts connections there.

    Nothing is asked of it, so this costs no tokens. Behind a proxy nobody can tell.
    """
    address = str(said.get("address") or "")
    parts = urlsplit(address)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    proxies = getproxies()

    behind = not proxies.keys().isdisjoint({parts.scheme, "all"})

    if not host or (behind and not proxy_bypass(f"{host}:{port}")):
        return ""

    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT):
            return ""
    except OSError as error:
        return f"{one_line(host)}:{port} accepts no connection: {error.strerror or str(error) or type(error).__name__}"


def verdict(said: JsonObject) -> tuple[bool, str, str]:
    """Tell what the server said: whether it is well, in a sentence, and what to do."""
    found = [f"{one['provider']} ({one['variable']})" for one in said.get("found", [])[:FOUND_MAX]]
    names = ", ".join(map(one_line, found))

    if problem := said.get("problem"):
        return (
            False,
            one_line(str(problem)),
            "set what it names in the configuration or the environment, see docs/models.md",
        )

    kind = one_line(str(said.get("kind", "")))

    if model := said.get("model"):
        return True, f"{kind}: {one_line(str(model))}", ""

    if not found:
        return True, f"{kind}; the environment has no key of a model", ""

    if not said.get("installed"):
        return True, f"{kind}; there is a key for {names}, and {one_line(str(said.get('extra')))} would let it plan", ""

    first = one_line(str(said["found"][0]["model"]))
    return True, f"{kind}; there is a key for {names}: autoglm run --model {first} would plan with it", ""
