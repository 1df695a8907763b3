"""Files on the caller's side: names that are safe on a disk, files put there whole, what a function saved."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import ToolContext, ToolError
from autoglm._files import FileLimits, Files, FileTooLargeError, Received, Target, check_label, disk_name
from autoglm.errors import InternalError
from autoglm.model import Artifact


def described(name: str, content: bytes) -> Artifact:
    return Artifact(name, "", len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


@given(st.text(max_size=300))
def test_a_name_never_leads_out_of_its_folder(name: str) -> None:
    found = disk_name(name)

    assert found not in ("", ".", "..")
    assert not set(found) & set('/\\:*?"<>|\0\n')
    assert not found.startswith((".", " "))
    assert len(found.encode()) <= 255
    assert (Path("/folder") / found).parent == Path("/folder")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\x\\y.txt", "C_x_y.txt"),
        (".bashrc", "bashrc"),
        ("...", "file"),
        ("CON.txt", "_CON.txt"),
        ("a" * 300 + ".png", "a" * 196 + ".png"),
        ("Übersicht 2026.pdf", "Übersicht 2026.pdf"),
        ("a\u202egnp.exe", "agnp.exe"),
    ],
)
def test_names_on_disk(name: str, found: str) -> None:
    assert disk_name(name) == found


@given(st.text(max_size=260), st.text(max_size=130))
def test_what_is_checked_can_be_shown_and_sent(name: str, media_type: str) -> None:
    if not check_label(name, media_type):
        assert 1 <= len(name.encode()) <= 4 * 256
        assert "\n" not in name + media_type


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = Target(tmp_path / "a", overwrite=False)
    target.write(b"half")
    assert not (tmp_path / "a").exists()

    target.discard()
    assert list(tmp_path.iterdir()) == []

    target = Target(tmp_path / "a", overwrite=False)
    target.write(b"whole")
    target.keep()
    target.discard()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_what_is_there_is_only_overwritten_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for taken in (path, tmp_path / "link", tmp_path):
        with pytest.raises(FileExistsError, match="exists"):
            Target(taken, overwrite=False)

    target = Target(path, overwrite=True)
    target.write(b"new")
    target.keep()
    assert path.read_bytes() == b"new"


def test_what_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = Target(tmp_path / "a", overwrite=False)
    (tmp_path / "a").write_bytes(b"mine")

    with pytest.raises(FileExistsError, match="exists"):
        target.keep()

    target.discard()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_overwriting_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    target = Target(tmp_path / "link", overwrite=True)
    target.keep()

    assert (tmp_path / "outside").read_bytes() == b"mine"


# --- of a direct call


def test_received_files_get_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"mine")
    received = Received(tmp_path)
    told: dict[str, str] = {}
    named = []

    for name, content in (("a.txt", b"12"), ("x/a.txt", b"3"), ("x_a.txt", b"4"), ("dropped", b"5")):
        named.append(described(name, content))
        received.add(named[-1], content[:1])
        if content[1:]:
            received.add(None, content[1:])

    received.keep(named[:-1], lambda artifact, path: told.update({artifact.name: path.name}))
    received.discard()

    assert told == {"a.txt": "a (2).txt", "x/a.txt": "x_a.txt", "x_a.txt": "x_a (2).txt"}
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {"a.txt": b"mine", "a (2).txt": b"12", "x_a.txt": b"3", "x_a (2).txt": b"4"}


def test_a_damaged_file_is_not_kept(tmp_path: Path) -> None:
    received = Received(tmp_path)
    artifact = described("a", b"12")
    received.add(artifact, b"13")

    with pytest.raises(InternalError, match="came damaged"):
        received.keep([artifact], None)

    received.discard()
    assert list(tmp_path.iterdir()) == []


def test_parts_without_a_beginning_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="without saying of which"):
        Received(tmp_path).add(None, b"x")

    Received(None).add(None, b"x")  # where nothing is kept, nothing is looked at


# --- of a function


def test_a_context_saves_in_a_test_too(tmp_path: Path) -> None:
    context = ToolContext()
    (tmp_path / "big").write_bytes(big := os.urandom(1 << 20))

    assert context.save("a.json", "{}") == Artifact("a.json", "application/json", 2, described("", b"{}").digest)
    assert context.save("note", "text").media_type == "text/plain"
    assert context.save("big", tmp_path / "big", "application/x-big").size_bytes == 1 << 20
    assert [b"".join(file.pieces()) for file in context.files] == [b"{}", b"text", big]


@pytest.mark.parametrize("name", ["", "x" * 257, "a\x00b"])
def test_a_name_that_cannot_be_shown_is_the_functions_fault(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ToolContext().save(name, b"")


def test_the_limits_of_what_a_function_saves(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    limits = FileLimits(10, 3, 15)

    for content in (bytes(11), "x" * 11, tmp_path / "large"):
        with pytest.raises(FileTooLargeError):
            Files(limits).add("a", content)

    files = Files(limits)
    files.add("a", bytes(10))
    with pytest.raises(FileTooLargeError, match="together"):
        files.add("b", bytes(6))

    files.add("b", bytes(5))
    files.add("c", b"")
    with pytest.raises(ToolError, match="a call may save 3 files") as raised:
        ToolContext(files=files).save("d", b"")

    failure = raised.value.to_failure("tool")
    assert (failure.reason, failure.domain, failure.metadata) == (
        "INVALID_ARTIFACT",
        "autoglm",
        {"limit": "3", "size": "4"},
    )


def test_what_waits_on_disk_goes_with_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = Files()
    files.add("small", b"x")
    assert list(tmp_path.iterdir()) == []

    files.add("large", bytes(1 << 20))
    assert len(list(tmp_path.iterdir())) == 1

    files.close()
    assert list(tmp_path.iterdir()) == []

    Files().add("large", bytes(1 << 20))
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_what_never_ends_or_answers_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            Files().add("a", path)
