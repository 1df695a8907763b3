"""``autoglm plugins``: one line a plugin, then what is to be said of it; what is read from a server is cleaned."""

from __future__ import annotations

import pytest

from autoglm import wire
from autoglm.model import Plugin, PluginState, ServerInfo
from tests.sdk.cli.scripted import ScriptedClient, cli

BUILTIN = Plugin(
    "builtin",
    "0.1.0",
    "builtin",
    enabled=True,
    mode="full",
    state=PluginState.ACTIVE,
    tools=("a", "b"),
    planners=("p",),
)
BROKEN = Plugin(
    "broken",
    "",
    "python:x.py",
    enabled=True,
    mode="full",
    state=PluginState.FAILED,
    reason="on_load: \x1b[31mno",
    errors=1,
)
SLOW = Plugin(
    "slow",
    "2.0",
    "slow:Slow",
    enabled=True,
    mode="observe",
    state=PluginState.DEGRADED,
    reason="a hook of steps took longer than 10 s",
    errors=3,
    dropped=1200,
)
IDLE = Plugin("idle", "1.0", "idle", state=PluginState.DISABLED, reason="not named")


class Client(ScriptedClient):
    """A server with plugins."""

    plugins: tuple[Plugin, ...] = ()

    def info(self) -> ServerInfo:
        return ServerInfo("0.1.0", "journal", (), "rules", self.plugins)


def client(*plugins: Plugin) -> Client:
    made = Client()
    made.plugins = plugins
    return made


def test_plugins_are_listed_with_what_failed_and_why() -> None:
    done = cli("plugins", client=client(BUILTIN, BROKEN, SLOW, IDLE))

    assert done.out.splitlines() == [
        "plugin   version  state     mode     source       gives",
        "builtin  0.1.0    active    full     builtin      2 tools, 1 planner",
        "broken            failed    full     python:x.py",
        "slow     2.0      degraded  observe  slow:Slow",
        "idle     1.0      disabled           idle",
        "",
        "broken: on_load: \\u001b[31mno",
        "slow: a hook of steps took longer than 10 s",
        "slow: 3 calls of its hooks failed",
        "slow: it was not told of 1,200 events",
        "idle: not named",
    ]
    assert done.status == 1


@pytest.mark.parametrize(("plugins", "status"), [((BUILTIN, SLOW, IDLE), 0), ((BROKEN,), 1)])
def test_as_json_one_a_line(plugins: tuple[Plugin, ...], status: int) -> None:
    done = cli("plugins", "--json", client=client(*plugins))

    assert done.out == "".join(wire.to_json(plugin) + "\n" for plugin in plugins)
    assert done.status == status
