"""File tools: what they do inside the workspace, and that nothing leads outside of it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import Effect
from autoglm.tool import FunctionTool, ToolError
from autoglm_server.planner.rules import check_phrases
from autoglm_server.tools.builtin import _workspace
from autoglm_server.tools.builtin.files import file_tools

SECRET = "outside"


class Box:
    """A workspace with hostile things in it, and a secret beside it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.root = folder / "workspace"
        self.secret = self.outside / "secret.txt"
        self.outside.mkdir()
        self.root.mkdir()
        self.secret.write_text(SECRET)
        self.tools: dict[str, FunctionTool] = {tool.spec.name: tool for tool in file_tools(self.root)}

    def __call__(self, name: str, *arguments: str | float) -> Any:
        return self.tools[f"files.{name}"](*arguments)

    def reason(self, name: str, *arguments: str) -> str:
        with pytest.raises(ToolError) as caught:
            self(name, *arguments)

        assert str(self.root.parent) not in caught.value.message
        return caught.value.reason


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_effects_are_declared(box: Box) -> None:
    specs = {name: tool.spec for name, tool in box.tools.items()}

    assert {name: spec.effect for name, spec in specs.items()} == {
        "files.list": Effect.READ_ONLY,
        "files.read": Effect.READ_ONLY,
        "files.write": Effect.IDEMPOTENT,
        "files.append": Effect.NON_IDEMPOTENT,
    }
    assert [name for name, spec in specs.items() if spec.requires_approval] == ["files.append"]
    for spec in specs.values():
        assert {phrase.language for phrase in spec.phrases} == {"en", "zh"}
        assert check_phrases(spec) == []


def test_write_then_read_list_and_append(box: Box) -> None:
    assert box("write", "notes/day/a.txt", "héllo\n") == {"path": "notes/day/a.txt", "size_bytes": 7, "created": True}
    assert box("read", "notes/day/a.txt") == {"content": "héllo\n", "size_bytes": 7}
    assert box("append", "notes/day/a.txt", "你好") == {"path": "notes/day/a.txt", "size_bytes": 13}
    assert box("read", "./notes//day/a.txt")["content"] == "héllo\n你好"
    assert box("write", "notes/day/a.txt", "new") == {"path": "notes/day/a.txt", "size_bytes": 3, "created": False}
    assert box("append", "b.txt", "made") == {"path": "b.txt", "size_bytes": 4}
    assert box("list") == {
        "result": ["b.txt", "notes/"],
        "entries": [
            {"name": "b.txt", "kind": "file", "size_bytes": 4},
            {"name": "notes", "kind": "folder", "size_bytes": (box.root / "notes").stat().st_size},
        ],
        "truncated": False,
    }
    assert box("list", "notes/day")["result"] == ["a.txt"]


def test_a_workspace_that_is_not_there_is_made(tmp_path: Path) -> None:
    tools = {tool.spec.name: tool for tool in file_tools(tmp_path / "a" / "b")}
    assert tools["files.list"]()["result"] == []


def test_a_result_that_is_a_number_is_written_as_json_writes_it(box: Box) -> None:
    box("write", "n.txt", 10.0)
    box("append", "n.txt", True)

    assert box("read", "n.txt")["content"] == "10true"


def test_a_write_keeps_the_mode_and_leaves_nothing_behind(box: Box) -> None:
    (box.root / "run.sh").write_text("old")
    (box.root / "run.sh").chmod(0o750)
    box("write", "run.sh", "new")

    assert (box.root / "run.sh").stat().st_mode & 0o777 == 0o750
    assert [entry.name for entry in box.root.iterdir()] == ["run.sh"]


def test_a_write_that_fails_leaves_the_old_content_alone(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box("write", "a.txt", "old")

    def full(_file: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_workspace, "_write", full)
    assert box.reason("write", "a.txt", "new") == "NO_SPACE"
    assert box.reason("write", "b.txt", "new") == "NO_SPACE"
    monkeypatch.undo()

    assert (box.root / "a.txt").read_text() == "old"
    assert [entry.name for entry in box.root.iterdir()] == ["a.txt"]


def test_readers_see_all_of_the_old_or_all_of_the_new(box: Box) -> None:
    contents = ["a" * 100_000, "b" * 100_000]
    box("write", "f", contents[0])
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            box("write", "f", contents[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            assert box("read", "f")["content"] in contents
    finally:
        stop.set()
        writer.join()


def test_what_is_not_there_or_not_text_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.root / "binary").write_bytes(b"\xff\xfe\x00")
    (box.root / "zero").write_bytes(b"a\0b")
    (box.root / "large").write_bytes(b"x" * (_workspace.READ_MAX + 1))
    (box.root / "most").write_bytes(b"x" * _workspace.READ_MAX)

    assert box.reason("read", "nothing") == "NOT_THERE"
    assert box.reason("read", "no/thing") == "NOT_THERE"
    assert box.reason("list", "nothing") == "NOT_THERE"
    assert box.reason("list", "most") == "NOT_A_FOLDER"
    assert box.reason("read", "most/x") == "NOT_A_FOLDER"
    assert box.reason("write", "most/x", "") == "NOT_A_FOLDER"
    assert box.reason("read", "binary") == "NOT_TEXT"
    assert box.reason("read", "zero") == "NOT_TEXT"
    assert box.reason("read", "large") == "TOO_LARGE"
    assert box("read", "most")["size_bytes"] == _workspace.READ_MAX

    monkeypatch.setattr(_workspace, "FILE_MAX", 5)
    box("append", "log", "12345")
    assert box.reason("append", "log", "6") == "TOO_LARGE"


def test_a_long_folder_is_cut(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workspace, "ENTRIES_MAX", 2)
    for name in "abc":
        box("write", name, "")

    assert box("list")["result"] == ["a", "b"]
    assert box("list")["truncated"]


def furnish(box: Box) -> None:
    """Put links of every kind into the workspace."""
    (box.root / "link.txt").symlink_to(box.secret)
    (box.root / "relative.txt").symlink_to("../outside/secret.txt")
    (box.root / "folder").symlink_to(box.outside)
    (box.root / "chain").symlink_to("folder")
    (box.root / "up").symlink_to("..")
    (box.root / "new.txt").symlink_to(box.outside / "made.txt")
    (box.root / "plain").mkdir()
    (box.root / "plain" / "inner").symlink_to(box.outside)
    (box.root / "inside.txt").write_text("inside")
    (box.root / "inside-link.txt").symlink_to("inside.txt")


HOSTILE = [
    "../outside/secret.txt",
    "plain/../../outside/secret.txt",
    "./../outside/secret.txt",
    "plain/inner/secret.txt",
    "plain/inner/../outside/secret.txt",
    "link.txt",
    "relative.txt",
    "folder/secret.txt",
    "folder/./secret.txt",
    "chain/secret.txt",
    "up/outside/secret.txt",
    "{outside}/secret.txt",
    "//{outside}/secret.txt",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_no_path_leads_outside(box: Box, path: str) -> None:
    furnish(box)
    path = path.replace("{outside}", str(box.outside))
    reasons = {"OUTSIDE_WORKSPACE", "LINK_REFUSED"}
    with pytest.raises(ToolError) as caught:
        box("read", path)

    assert caught.value.reason in reasons
    for name in ("write", "append"):
        with pytest.raises(ToolError) as caught:
            box(name, path, "changed")

        assert caught.value.reason in reasons

    with pytest.raises(ToolError):
        box("list", path.rpartition("/")[0] or path)

    assert box.secret.read_text() == SECRET
    assert [entry.name for entry in box.outside.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize("path", HOSTILE)
def test_control_each_of_these_paths_does_lead_outside(box: Box, path: str) -> None:
    """What the obvious implementation would have read."""
    furnish(box)
    assert (box.root / path.replace("{outside}", str(box.outside))).read_text() == SECRET


@pytest.mark.parametrize("path", ["link.txt", "relative.txt", "inside-link.txt", "new.txt"])
def test_links_are_listed_but_never_followed(box: Box, path: str) -> None:
    furnish(box)
    kinds = {entry["name"]: entry["kind"] for entry in box("list")["entries"]}

    assert kinds[path] == "link"
    assert box.reason("read", path) == "LINK_REFUSED"
    assert box.reason("write", path, "x") == "LINK_REFUSED"
    assert box.reason("append", path, "x") == "LINK_REFUSED"
    assert (box.root / path).is_symlink()
    assert not (box.outside / "made.txt").exists()


def test_a_link_that_takes_a_files_place_after_the_check_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.root / "a.txt").write_text("mine")
    real = _workspace._seen

    def swap(name: str, folder: int) -> os.stat_result | None:
        seen = real(name, folder)
        (box.root / "a.txt").unlink(missing_ok=True)
        (box.root / "a.txt").symlink_to(box.secret)
        return seen

    monkeypatch.setattr(_workspace, "_seen", swap)
    assert box.reason("read", "a.txt") == "LINK_REFUSED"
    monkeypatch.setattr(_workspace, "_seen", real)
    (box.root / "a.txt").unlink()
    (box.root / "a.txt").write_text("mine")
    monkeypatch.setattr(_workspace, "_seen", swap)
    assert box.reason("append", "a.txt", "x") == "LINK_REFUSED"
    assert box.secret.read_text() == SECRET


def test_a_folder_that_becomes_a_link_is_refused(box: Box) -> None:
    stop = threading.Event()
    inner = box.root / "inner"

    def swap() -> None:
        while not stop.is_set():
            inner.mkdir()
            inner.rmdir()
            inner.symlink_to(box.outside)
            inner.unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(300):
            with pytest.raises(ToolError):
                box("read", "inner/secret.txt")
    finally:
        stop.set()
        swapper.join()


def test_another_name_of_a_file_outside_is_not_appended_to(box: Box) -> None:
    os.link(box.secret, box.root / "hard.txt")

    assert box.reason("append", "hard.txt", "x") == "LINK_REFUSED"
    box("write", "hard.txt", "mine")  # takes the name, not the file
    assert box.secret.read_text() == SECRET


def test_what_is_neither_file_nor_folder_is_refused_and_not_opened(box: Box) -> None:
    os.mkfifo(box.root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(box.root)  # a socket's path must be short
    listener.bind("socket")
    os.chdir(here)
    (box.root / "sub").mkdir()
    for name in ("fifo", "socket", "sub"):
        assert box.reason("read", name) == "NOT_A_FILE"
        assert box.reason("write", name, "x") == "NOT_A_FILE"
        assert box.reason("append", name, "x") == "NOT_A_FILE"

    listener.close()
    assert {entry["kind"] for entry in box("list")["entries"]} == {"other", "folder"}


def test_a_fifo_that_takes_a_files_place_does_not_hang(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(box.root / "fifo")
    monkeypatch.setattr(_workspace, "_seen", lambda _name, _folder: None)

    assert box.reason("read", "fifo") == "NOT_A_FILE"
    assert box.reason("append", "fifo", "x") == "NOT_A_FILE"


@pytest.mark.parametrize("path", ["/dev/zero", "/etc/passwd", "/proc/self/root/etc/passwd", "/"])
def test_absolute_paths_are_refused(box: Box, path: str) -> None:
    for name, *more in (("read",), ("list",), ("write", "x"), ("append", "x")):
        assert box.reason(name, path, *more) == "OUTSIDE_WORKSPACE"


@pytest.mark.parametrize("path", ["", "a\0b", "a\nb", "C:\\x", "..\\secret", "x" * 1025, "a/" * 40 + "b", "é" * 200])
def test_paths_that_are_none_are_refused(box: Box, path: str) -> None:
    assert box.reason("read", path) == "INVALID_PATH"
    assert box.reason("write", path, "x") == "INVALID_PATH"


@pytest.mark.parametrize("path", [".", "a/", "./"])
def test_a_folder_is_no_file(box: Box, path: str) -> None:
    assert box.reason("write", path, "x") == "NOT_A_FILE"


@given(
    st.lists(st.sampled_from(["..", ".", "", "plain", "folder", "inner", "up", "link.txt", "outside", "secret.txt"]))
)
def test_any_path_of_these_parts_stays_inside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    box = Box(tmp_path_factory.mktemp("box"))
    furnish(box)
    content = None
    with contextlib.suppress(ToolError):
        content = box("read", "/".join(parts))["content"]

    assert content != SECRET
