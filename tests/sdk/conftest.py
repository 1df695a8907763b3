"""Both clients, and a server that does what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.sdk.both import Both
from tests.sdk.scripted_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture(params=["synchronous", "asynchronous"])
async def both(request: pytest.FixtureRequest, server: ScriptedServer) -> AsyncIterator[Both]:
    """One client of each kind in turn: a test is one script that runs against both."""
    made = Both(request.param == "asynchronous", server.address, timeout=10.0)
    yield made
    await made.do(made.client.close())


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of the caller's own configuration."""
    for name in ("AUTOGLM_ADDRESS", "AUTOGLM_DATA_DIR", "AUTOGLM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
