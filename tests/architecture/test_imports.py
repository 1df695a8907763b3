"""The code keeps its shape: layers hold, and `import autoglm` stays light."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = """
import sys
before = set(sys.modules)
import autoglm
{use}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names))
"""
# What a client may load: itself, and the closure of its base dependencies. Everything else waits until it is used.
# grpc imports by itself those of its sisters that are installed, tools and reflection too.
GRPC = {"cython_runtime", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "grpc_tools"}
LIGHT = {"autoglm", "google", "typing_extensions"} | GRPC


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    assert program is not None, "import-linter is not installed beside this Python; install the extra `dev`"
    path = os.pathsep.join([str(root / "sdk"), str(root / "server")])
    return subprocess.run(
        [program, "--no-cache", "--config", str(root / "pyproject.toml")],
        cwd=root,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("sdk", "server"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))

    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_layers_hold() -> None:
    done = lint_imports(ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


INTRUDERS = {
    "server/autoglm_server/journal/upward.py": ("autoglm_server.scheduler", "each knows only what is below"),
    "server/autoglm_server/planner/sideways.py": ("autoglm_server.tools", "each knows only what is below"),
    "server/autoglm_server/scheduler/calling.py": ("grpc", "gRPC only at the edges"),
    "server/autoglm_server/scheduler/asking.py": ("apsw", "SQL only in the journal"),
    "sdk/autoglm/serving.py": ("autoglm_server", "the SDK never imports the server"),
    "sdk/autoglm/dialling.py": ("grpc", "gRPC only at the edges"),
}
"""Modules that break a rule: what each imports, and the rule."""


def test_each_broken_layer_is_noticed(copy: Path) -> None:
    for path, (imported, _) in INTRUDERS.items():
        (copy / path).write_text(f"import {imported}\n")

    done = lint_imports(copy)

    assert done.returncode == 1, done.stdout + done.stderr
    for path, (imported, rule) in INTRUDERS.items():
        module = path.partition("/")[2].removesuffix(".py").replace("/", ".")
        assert re.search(rf"{rule}.* BROKEN", done.stdout), done.stdout
        assert f"{module} -> {imported} (l.1)" in done.stdout, done.stdout


@pytest.mark.parametrize(("use", "allowed"), [("", {"autoglm"}), ("autoglm.AsyncClient", LIGHT)])
def test_importing_autoglm_stays_light(use: str, allowed: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(use=use)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {name for name in loaded - allowed if not name.startswith("_cython_")} == set()
    assert "autoglm" in loaded
