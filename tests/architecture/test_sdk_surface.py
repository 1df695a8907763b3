"""The SDK's surface: its exports are complete, its twins in step, and every RPC has a method."""

from __future__ import annotations

import enum
import inspect
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import autoglm
from autoglm import aio, errors, model
from autoglm.v1 import plan_service_pb2, tool_service_pb2

ROOT = Path(__file__).resolve().parents[2]
UNASYNC = ROOT / "sdk" / "unasync.py"
GENERATED = ("client.py", "_link.py")

METHODS = {
    "CreatePlan": "create",
    "RunPlan": "run",
    "GetPlan": "get",
    "ListPlans": "list",
    "ListSteps": "list_steps",
    "WatchPlan": "watch",
    "WatchPlans": "watch_all",
    "CancelPlan": "cancel",
    "ResolveStep": "resolve",
    "ReadArtifact": "read_artifact",
    "GetServerInfo": "info",
    "ListTools": "tools.list",
    "GetTool": "tools.get",
    "CallTool": "tools.call",
}
"""The method of the client for each RPC. RunPlan is create, then watch."""

PUBLIC = [
    autoglm.AsyncClient,
    autoglm.AsyncPlanHandle,
    autoglm.AsyncTools,
    autoglm.AsyncWatch,
    autoglm.Client,
    autoglm.PlanHandle,
    autoglm.Tools,
    autoglm.Watch,
]


def own(module: ModuleType) -> set[str]:
    """The public classes, aliases and constants that a module defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            getattr(value, "__module__", "") == module.__name__
            or (name[0].isupper() and not inspect.isclass(value) and name in module.__annotations__)
        )
    }


def test_all_is_sorted_complete_and_true() -> None:
    names = autoglm.__all__

    assert names == sorted(set(names), key=_by_kind)
    assert all(hasattr(autoglm, name) for name in names)

    vocabulary = {
        name
        for name in own(model)
        if (is_dataclass(vars(model)[name]) or isinstance(vars(model)[name], enum.EnumType)) and name != "_Enum"
    }
    raised = {name for name in own(errors) if inspect.isclass(vars(errors)[name])}
    wanted = vocabulary | raised | set(aio.__all__) | {"Client", "PlanHandle", "Tools", "Watch", "tool", "ToolError"}
    wanted |= {"Fact", "Json", "JsonObject", "init", "run", "shutdown", "__version__", "ToolContext", "FunctionTool"}

    assert wanted <= set(names)


def _by_kind(name: str) -> tuple[int, str]:
    """Sort as ruff does: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_every_rpc_has_a_method_on_both_clients() -> None:
    services = (
        plan_service_pb2.DESCRIPTOR.services_by_name["PlanService"],
        tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"],
    )

    assert {method.name for service in services for method in service.methods} == set(METHODS)

    for kind, tools in ((autoglm.Client, autoglm.Tools), (autoglm.AsyncClient, autoglm.AsyncTools)):
        for name in METHODS.values():
            owner: Any = tools if name.startswith("tools.") else kind
            assert callable(getattr(owner, name.removeprefix("tools.")))


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_public_method_is_documented_with_an_example(kind: type) -> None:
    for name, method in vars(kind).items():
        if name.startswith("_") or isinstance(method, property):
            continue

        assert ">>>" in (inspect.getdoc(method) or ""), f"{kind.__name__}.{name} has no example"

        if kind.__name__.startswith("Async"):
            continue

        assert "await" not in (inspect.getdoc(method) or "")


def test_the_twins_have_the_same_methods_and_parameters() -> None:
    for asynchronous, synchronous in zip(PUBLIC[:4], PUBLIC[4:], strict=True):
        for name, method in vars(asynchronous).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                twin = getattr(synchronous, name)
                assert [*inspect.signature(method).parameters] == [*inspect.signature(twin).parameters]


def test_the_committed_twins_are_current() -> None:
    done = subprocess.run([sys.executable, str(UNASYNC), "--check"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("change", [lambda text: text + "\n", lambda text: text.replace("  ", "   ", 1)])
def test_the_check_sees_any_difference(tmp_path: Path, change: Any) -> None:
    for name in ("aio.py", "_aio_link.py", *GENERATED):
        shutil.copy(ROOT / "sdk" / "autoglm" / name, tmp_path)

    check = [sys.executable, str(UNASYNC), "--check", "--package", str(tmp_path)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0

    (tmp_path / "client.py").write_text(change((tmp_path / "client.py").read_text()))
    done = subprocess.run(check, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "To fix: python sdk/unasync.py" in done.stdout


def test_a_rule_that_finds_nothing_is_an_error() -> None:
    unasync = runpy.run_path(str(UNASYNC))["unasync"]
    sources = {"a.py": "await one\n", "b.py": "two\n"}

    assert unasync(sources, [(r"await ", "")])["a.py"].endswith("one\n")

    with pytest.raises(ValueError, match="three"):
        unasync(sources, [(r"await ", ""), ("three", "3")])


def test_nothing_asynchronous_is_left_in_the_synchronous_client() -> None:
    for name in GENERATED:
        text = (ROOT / "sdk" / "autoglm" / name).read_text().partition("\n")[2]
        assert not re.findall(
            r"\basync\b|\bawait\b|\basyncio\b|\bAsync\w+|grpc\.aio|__a(?:iter|next|enter|exit)__", text
        )
