"""The examples run as a person runs them: each program, and each plan file, against an embedded server of its own folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from autoglm import local
from autoglm.model import CallContext
from autoglm.tool import ToolContext
from autoglm_server.tools.loading import load_file
from tests.integration.command_line import tell

ROOT = Path(__file__).parent.parent.parent
DEMO = ["--provider", "demo=python:examples/tools/unreliable.py"]
PLANS = [
    ("two_chains", 0, "That Is 5.06 Euros"),
    ("nested_reference", 0, "ORDER 1007 TO LONDON: B2, NOT ${SKU}"),
    ("fan_out", 0, "220100"),
    ("flaky", 0, "70.7"),
    ("failing", 1, "158.229"),
]
"""Each plan file, the exit status, and a part of what is printed."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command of this environment, the command line in this process; all share a data directory, and what they left
    running is stopped at the end.
    """
    folder = tmp_path_factory.mktemp("examples")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM_")}
    environment = kept | {"AUTOGLM_DATA_DIR": str(folder / "data"), "SHOP_RECEIPTS": str(folder / "receipts")}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[:2] == ("-m", "autoglm.cli"):
            with contextlib.chdir(ROOT):
                return tell(environment, *arguments[2:])

        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    yield command

    found = local.read(folder / "data")
    if found is not None:
        with suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)


def test_python_client(run: Run) -> None:
    done = run("examples/python_client.py")

    assert done.returncode == 0, done.stderr
    assert "231.15" in done.stdout
    assert "{'root': {" in done.stdout
    assert "'result': 3" in done.stdout
    assert "steps[0].tool" in done.stdout
    assert "steps[0].depends_on" in done.stdout


def test_async_client(run: Run) -> None:
    done = run("examples/async_client.py")

    assert done.returncode == 0, done.stderr
    answers = dict(line.split(" -> ") for line in done.stdout.splitlines())
    assert len(answers) == 6
    assert "372" in answers["15% of 2480"]
    assert "26.2" in answers["convert 42.195 kilometers to miles"]
    assert "42" in answers["the square root of 1764"]
    assert answers["fold the laundry"] == "failed: REQUEST_NOT_UNDERSTOOD"
    assert "CANCELLED" in answers.values()


def test_custom_tool(run: Run) -> None:
    done = run("examples/custom_tool.py")

    assert done.returncode == 0, done.stderr
    assert "pack: 3" in done.stdout.splitlines()
    assert "packing two chairs" in done.stdout
    assert "'cents': 3750" in done.stdout


def test_openapi_service(run: Run) -> None:
    done = run("examples/openapi_service.py")

    assert done.returncode == 0, done.stderr
    assert "warehouse.stock: Say how many there are. (READ_ONLY)" in done.stdout
    assert "'count': 7" in done.stdout
    assert "key-of-the-warehouse" not in done.stdout + done.stderr


def test_langchain_agent(run: Run) -> None:
    done = run("examples/langchain_agent.py")

    assert done.returncode == 0, done.stderr
    assert "231.15" in done.stdout
    assert '"result":42' in done.stdout
    assert "desserts" in done.stdout


def test_langchain_tools(run: Run) -> None:
    lc = ["--provider", "lc=python:examples/tools/langchain_tools.py"]
    done = run("-m", "autoglm.cli", "call", "lc.reading_time", "--args", '{"text": "to be or not to be"}', *lc)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.03"


def test_its_side_effect_happens_once_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = load_file(ROOT / "examples" / "custom_tool.py")
    monkeypatch.setattr(shop, "RECEIPTS", tmp_path / "receipts")

    def pay(cents: int, attempt: int, key: str) -> object:
        return shop.pay("order", cents, ToolContext(idempotency_key=key, call=CallContext("plan", "pay", attempt)))

    first = pay(100, 1, "plan/pay")
    assert pay(200, 2, "plan/pay") == first
    assert pay(200, 1, "plan/other") != first
    assert len(list((tmp_path / "receipts").iterdir())) == 2


@pytest.mark.parametrize(("plan", "status", "told"), PLANS)
def test_a_plan_file(run: Run, plan: str, status: int, told: str) -> None:
    done = run("-m", "autoglm.cli", "run", *DEMO, "--plan", f"examples/plans/{plan}.yaml")

    assert done.returncode == status, done.stderr
    assert told in done.stdout


def test_every_plan_file_is_run() -> None:
    assert {plan for plan, _, _ in PLANS} == {path.stem for path in (ROOT / "examples" / "plans").iterdir()}


def test_the_plan_that_needs_the_extra_for_tables(run: Run) -> None:
    done = run("-m", "autoglm.cli", "run", "--json", "--plan", "examples/sales.yaml")

    assert done.returncode == 0, done.stderr
    assert "MOST IS SOLD IN THE SOUTH" in done.stdout
    assert "chart.png" in done.stdout


def test_the_fan_out_is_what_its_script_writes(run: Run) -> None:
    assert run("examples/fan_out.py").stdout == (ROOT / "examples" / "plans" / "fan_out.yaml").read_text()


def test_the_readme_names_every_example() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    missing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "examples").rglob("*")
        if path.suffix in {".py", ".yaml"} and str(path.relative_to(ROOT)) not in text
    ]
    assert not missing
