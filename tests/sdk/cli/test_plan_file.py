"""``--plan FILE``: JSON or YAML, every fault with the file's name."""

import io
from datetime import timedelta
from pathlib import Path

import pytest

from autoglm.cli.exits import InputError
from autoglm.cli.plan_file import BYTES_MAX, read_plan
from autoglm.model import CreatePlanRequest, PlanOptions, StepDraft

YAML = """\
request: and then sum up
steps:
  - id: sum
    tool: math.calculate
    arguments: {expression: 1 + 1}
    timeout: 3s
  - id: told
    tool: text.upper
    arguments:
      text: ${sum}
    dependsOn: [sum]
options:
  maxSteps: 3
"""
WANTED = CreatePlanRequest(
    request="and then sum up",
    steps=(
        StepDraft(id="sum", tool="math.calculate", arguments={"expression": "1 + 1"}, timeout=timedelta(seconds=3)),
        StepDraft(id="told", tool="text.upper", arguments={"text": "${sum}"}, depends_on=("sum",)),
    ),
    options=PlanOptions(max_steps=3),
)


def faults(name: str, stdin: bytes = b"") -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        read_plan(name, io.BytesIO(stdin))

    return error.value.faults


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(YAML)

    assert read_plan(str(file), io.BytesIO()) == WANTED


def test_stdin_is_json_when_it_looks_so_else_yaml() -> None:
    assert read_plan("-", io.BytesIO(YAML.encode())) == WANTED
    assert read_plan("-", io.BytesIO(b'\xef\xbb\xbf {"request": "x"}')) == CreatePlanRequest(request="x")


def test_a_plan_in_flow_style_is_yaml_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "plan.yml"
    file.write_text("{request: x}")

    assert read_plan(str(file), io.BytesIO()) == CreatePlanRequest(request="x")


def test_every_fault_is_told_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("steps:\n  - {id: a, tool: 3}\n  - {id: b, tol: x}\noptions: {max_steps: many}\n")

    found = faults(str(file))

    assert len(found) == 3
    assert all(fault.startswith(f"{file}: ") for fault in found)
    assert "steps[0].tool" in found[0]
    assert "steps[1]" in found[1]
    assert "tool" in found[1]
    assert "options.max_steps" in found[2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[1]", "must be an object"),
        (b'{"request": NaN}', "NaN"),
        (b'{"request": "a", "request": "b"}', "twice"),
        (b"request: a\nrequest: b", "twice"),
        (b"\xff", "is not UTF-8"),
        (b"", "empty"),
        (b" " * (BYTES_MAX + 1), "is larger than 3 MiB"),
    ],
)
def test_what_is_no_plan(text: bytes, told: str) -> None:
    (found,) = faults("-", text)

    assert found.startswith("stdin: ")
    assert told in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (found,) = faults(str(tmp_path / "none.json"))

    assert found == f"{tmp_path / 'none.json'}: cannot be read: No such file or directory"
