"""The contract passes its own rules: style, comments, format, and no break against what was released."""

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAN = "proto/autoglm/v1/plan.proto"
RULES = {
    "lint": ("lint",),
    "format": ("format", "-d", "--exit-code"),
    "breaking": ("breaking", "--against", "proto/released.binpb"),
}


def buf(arguments: Sequence[str], root: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("buf", path=sysconfig.get_path("scripts"))
    assert program is not None, "buf is not installed beside this Python; install the extra `dev`"
    return subprocess.run([program, *arguments], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copyfile(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    return tmp_path


@pytest.mark.parametrize("rule", RULES)
def test_contract_is_clean(rule: str) -> None:
    done = buf(RULES[rule], ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("rule", "old", "new", "complaint"),
    [
        ("breaking", "string request = 2;", "string request = 40;", 'Previously present field "2"'),
        ("breaking", "string request = 2;", "bytes request = 2;", 'changed type from "string" to "bytes"'),
        ("breaking", "PLAN_STATE_PLANNING = 2;", "PLAN_STATE_THINKING = 2;", "PLAN_STATE_PLANNING"),
        ("lint", "// Unique id, assigned at creation, opaque.", "", "should have a non-empty comment"),
        ("lint", "string context_id = 16;", "string contextId = 16;", "lower_snake_case"),
        ("format", "string context_id = 16;", "string   context_id = 16;", "context_id"),
    ],
)
def test_fault_is_noticed(copy: Path, rule: str, old: str, new: str, complaint: str) -> None:
    text = (copy / PLAN).read_text()
    assert old in text
    (copy / PLAN).write_text(text.replace(old, new, 1))

    done = buf(RULES[rule], copy)

    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr
