"""What a server has imported when it serves: what its start does not need is imported later, or never."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from autoglm import cli
from autoglm_server import __main__

{before}

def serve(settings, **_):
    from autoglm_server import app
    application = app.Application(settings)
    announce = application._announce

    def then_end(parts, stack):
        announce(parts, stack)
        print(*sorted(sys.modules))
        application.stop()

    application._announce = then_end
    import asyncio
    with asyncio.Runner(loop_factory=app.new_loop) as runner:
        return runner.run(application.run())

import autoglm_server.app
autoglm_server.app.serve = serve
sys.argv[1:] = ["serve", "--port", "0", "--data-dir", {folder!r}]
sys.exit(cli.main())
"""
LATER = {
    "the rest of the command line": ("typer", "rich", "autoglm.cli.app"),
    "the client": ("autoglm.aio", "autoglm.client", "autoglm._link", "autoglm._aio_link", "autoglm.tool_server"),
    "what reads settings in other ways": ("yaml", "autoglm.cli.yaml_file"),
    "sources of tools": ("mcp", "httpx2", "httpcore2", "anyio", "autoglm_server.tools.providers.grpc"),
    "calls over reflection": ("autoglm_server.tools.providers.reflect", "autoglm_server.tools.providers.messages"),
    "models": ("pydantic_ai", "openai", "anthropic"),
    "units": ("pint",),
    "the rules": ("autoglm_server.planner.rules.grammar",),
    "data": ("duckdb", "matplotlib", "numpy"),
    "other ways to serve": ("multiprocessing", "http.client", "xml", "unittest"),
}
MODULES_MAX = 620
"""Of the standard library, of others, and our own; the count differs a little between versions and systems."""


def loaded(folder: Path, before: str = "") -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(folder), before=before)],
        cwd=ROOT,
        env={**os.environ, "AUTOGLM_LOG__LEVEL": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return loaded(tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize("what", LATER)
def test_a_start_does_not_import(modules: set[str], what: str) -> None:
    assert not modules & set(LATER[what])


def test_a_start_imports_few_modules(modules: set[str]) -> None:
    assert len(modules) <= MODULES_MAX


def test_what_is_imported_before_it_serves_would_be_noticed(tmp_path: Path) -> None:
    assert "yaml" in loaded(tmp_path, before="import yaml")
