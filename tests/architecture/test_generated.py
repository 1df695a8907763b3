"""The committed generated code is what the pinned generator makes of the contract."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
V1 = "sdk/autoglm/v1"


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / V1, tmp_path / V1, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_generated_code_is_current() -> None:
    done = generate("--check")

    assert done.returncode == 0, done.stdout + done.stderr


def test_differences_are_named_and_mended(copy: Path) -> None:
    folder = copy / V1
    (folder / "plan_pb2.pyi").write_bytes((folder / "plan_pb2.pyi").read_bytes() + b"\n")
    (folder / "tool_pb2.py").unlink()
    (folder / "old_pb2.py").write_text("")
    by_hand = (folder / "__init__.py").read_bytes()

    found = generate("--check", "--root", str(copy))

    assert found.returncode == 1, found.stderr
    assert "differs: plan_pb2.pyi" in found.stdout
    assert "missing: tool_pb2.py" in found.stdout
    assert "not generated any more: old_pb2.py" in found.stdout
    assert "To fix: python .ci/generate.py" in found.stdout

    assert generate("--root", str(copy)).returncode == 0
    assert generate("--check", "--root", str(copy)).returncode == 0
    assert (folder / "__init__.py").read_bytes() == by_hand


def test_changed_contract_is_noticed(copy: Path) -> None:
    proto = copy / "proto/autoglm/v1/tool.proto"
    proto.write_text(proto.read_text().replace("bool available = 17;", "bool reachable = 17;"))

    found = generate("--check", "--root", str(copy))

    assert found.returncode == 1, found.stderr
    assert "differs: tool_pb2.py" in found.stdout
