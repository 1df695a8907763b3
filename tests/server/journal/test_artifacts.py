"""The store of files: contents once, links for plans, limits, what a crash leaves, what a full disk does."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from autoglm.model import Artifact
from autoglm_server.journal import artifacts as module
from autoglm_server.journal.artifacts import (
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactStoreError,
    ArtifactTooLargeError,
    FolderArtifacts,
)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def read(store: FolderArtifacts, plan_id: str, digest: str, offset: int = 0) -> bytes:
    return b"".join([piece async for piece in store.read(plan_id, digest, offset)])


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files_in(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FolderArtifacts]:
    found = FolderArtifacts(tmp_path / "artifacts", file_bytes=1 << 20, plan_bytes=2 << 20)
    await found.open()
    yield found
    await found.close()


async def test_every_kind_of_content_is_kept_and_read_back(store: FolderArtifacts, tmp_path: Path) -> None:
    content = os.urandom(600_000)
    (tmp_path / "source").write_bytes(content)

    kept = Artifact("a/b name.bin", "application/x", len(content), digest_of(content))

    for given in (content, tmp_path / "source", pieces(content[:7], b"", content[7:])):
        assert await store.put("plan", "a/b name.bin", "application/x", given) == kept

    assert await read(store, "plan", kept.digest) == content
    assert await read(store, "plan", kept.digest, 599_999) == content[-1:]
    assert await read(store, "plan", kept.digest, 600_000) == b""
    assert await store.size("plan", kept.digest) == 600_000
    assert max([len(piece) async for piece in store.read("plan", kept.digest)]) <= 256 << 10


async def test_an_empty_file_is_a_file(store: FolderArtifacts) -> None:
    kept = await store.put("plan", "empty", "", b"")

    assert (kept.size_bytes, kept.digest) == (0, digest_of(b""))
    assert await read(store, "plan", kept.digest) == b""


async def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / "artifacts")
    await store.open()
    await store.remove("plan")
    await store.close()

    assert not (tmp_path / "artifacts").exists()


async def test_a_content_is_stored_once_and_goes_with_its_last_plan(store: FolderArtifacts, tmp_path: Path) -> None:
    one, two = [await store.put(plan, plan, "", b"same") for plan in ("one", "two")]
    assert len({path.stat().st_ino for path in (tmp_path / "artifacts").rglob(one.digest[7:])}) == 1

    await store.remove("one")
    assert await read(store, "two", two.digest) == b"same"

    with pytest.raises(ArtifactNotFoundError):
        await read(store, "one", one.digest)

    await store.remove("two")
    await store.remove("two")
    assert files_in(tmp_path / "artifacts") == [Path("in-use")]


async def test_what_was_put_can_be_removed_before_the_threads_have_tidied_up(
    store: FolderArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_later", lambda _work: None)
    await store.put("plan", "a", "", b"content")
    await store.remove("plan")

    assert files_in(tmp_path / "artifacts") == [Path("in-use")]


async def test_a_plan_reads_its_own_files_alone(store: FolderArtifacts) -> None:
    kept = await store.put("one", "a", "", b"secret")

    for plan, digest in (("two", kept.digest), ("../plans/one", kept.digest), ("one", "sha256:../x"), ("one", "")):
        with pytest.raises(ArtifactNotFoundError):
            await read(store, plan, digest)

        with pytest.raises(ArtifactNotFoundError):
            await store.size(plan, digest)


@pytest.mark.parametrize("plan_id", ["", ".", "..", "a/b", ".hidden", "a" * 129])
async def test_a_plan_id_that_could_be_another_path_is_refused(store: FolderArtifacts, plan_id: str) -> None:
    with pytest.raises(ArtifactError, match="no id of a plan"):
        await store.put(plan_id, "a", "", b"")

    with pytest.raises(ArtifactError, match="no id of a plan"):
        await store.remove(plan_id)


@pytest.mark.parametrize(("name", "kind"), [("", ""), ("x" * 257, ""), ("a\nb", ""), ("a\u202eb", ""), ("a", "\x1b")])
async def test_names_and_media_types_are_bounded(store: FolderArtifacts, name: str, kind: str) -> None:
    with pytest.raises(ArtifactError):
        await store.put("plan", name, kind, b"")


async def test_the_limits_are_met_exactly(store: FolderArtifacts, tmp_path: Path) -> None:
    full = bytes(1 << 20)
    await store.put("plan", "largest", "", full)

    for given in (full + b"x", pieces(full, b"x")):
        with pytest.raises(ArtifactTooLargeError, match=r"limits\.artifact\)") as raised:
            await store.put("other", "larger", "", given)

        assert (raised.value.limit, raised.value.size) == (1 << 20, (1 << 20) + 1)

    await store.put("plan", "again", "", full)  # what the plan has costs nothing
    await store.put("plan", "second", "", b"y" * (1 << 20))
    with pytest.raises(ArtifactTooLargeError, match="plan_artifacts_bytes"):
        await store.put("plan", "third", "", b"z")

    await store.put("other", "third", "", b"z")
    await store.close()
    assert not list((tmp_path / "artifacts" / "incoming").iterdir())


async def test_what_a_plan_has_is_counted_again_by_another_process(tmp_path: Path) -> None:
    for number in (0, 1):
        store = FolderArtifacts(tmp_path, plan_bytes=10)
        await store.open()
        if number:
            with pytest.raises(ArtifactTooLargeError):
                await store.put("plan", "b", "", b"67890x")

        await store.put("plan", "a", "", b"12345" if not number else b"67890")
        await store.close()


async def test_what_is_no_regular_file_is_refused_and_does_not_block(store: FolderArtifacts, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(ArtifactError, match="cannot be read"):
            await store.put("plan", "a", "", path)


async def test_content_that_breaks_off_leaves_nothing(store: FolderArtifacts, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        await store.put("plan", "a", "", broken())

    await store.close()
    assert files_in(tmp_path / "artifacts") == []


async def test_a_cancelled_put_leaves_nothing_for_long(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"half"
        begun.set()
        await asyncio.Event().wait()

    store = FolderArtifacts(tmp_path)
    await store.open()
    task = asyncio.create_task(store.put("plan", "a", "", endless()))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()
    await store.open()
    await store.close()

    assert files_in(tmp_path) == []


async def test_a_file_counts_as_kept_when_the_folders_it_is_in_are_synced_whoever_made_them(
    store: FolderArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[set[str]] = []
    held, go_on = threading.Event(), threading.Event()

    def sync(folders: set[str]) -> None:
        synced.append({os.path.relpath(folder, tmp_path) for folder in folders})
        if len(synced) == 1:
            held.set()
            go_on.wait()

    monkeypatch.setattr(module, "_sync", sync)
    first = asyncio.ensure_future(store.put("p", "first", "", b"1"))
    await asyncio.to_thread(held.wait)
    await store.put("p", "second", "", b"2")
    go_on.set()
    await first
    await store.put("p", "third", "", b"3")
    await store.put("q", "fourth", "", b"3")

    above = {".", "artifacts", "artifacts/content", "artifacts/plans"}
    assert [above <= folders for folders in synced] == [True, True, False, False]
    assert "artifacts/plans/p" in synced[2] & synced[1]
    assert {"artifacts/plans", "artifacts/plans/q"} <= synced[3]


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
@pytest.mark.parametrize("function", ["write", "fsync", "link"])
async def test_a_disk_that_refuses_is_told_and_the_store_lives_on(
    store: FolderArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, full: bool, function: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse)
        with pytest.raises(ArtifactStoreError, match="'a' cannot be kept") as raised:
            await store.put("plan", "a", "", b"content")

    assert raised.value.full is full
    kept = await store.put("plan", "a", "", b"content")
    assert await read(store, "plan", kept.digest) == b"content"
    await store.close()
    assert not list((tmp_path / "artifacts" / "incoming").iterdir())


async def test_a_remove_that_the_disk_refuses_is_told_and_done_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    async def known(_plan_id: str) -> bool:
        return False

    store = FolderArtifacts(tmp_path)
    await store.open()
    await store.put("plan", "a", "", b"content")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        with pytest.raises(ArtifactStoreError, match="cannot be removed"):
            await store.remove("plan")

    await store.close()
    await store.open()
    await store.sweep(known)
    await store.close()
    assert files_in(tmp_path) == []
    assert not (tmp_path / "plans" / "plan").exists()


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.ENOTSUP])
async def test_without_hard_links_each_plan_has_its_own(
    store: FolderArtifacts, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    await store.put("one", "a", "", b"content")
    kept = await store.put("two", "a", "", b"content")
    await store.remove("one")

    assert await read(store, "two", kept.digest) == b"content"


async def test_a_file_that_is_read_while_it_goes_is_read_whole(store: FolderArtifacts) -> None:
    content = os.urandom(600_000)
    kept = await store.put("plan", "a", "", content)
    reading = store.read("plan", kept.digest)
    found = await anext(reading)
    await store.remove("plan")

    assert found + b"".join([piece async for piece in reading]) == content


async def test_many_puts_and_removes_at_once_lose_nothing(store: FolderArtifacts, tmp_path: Path) -> None:
    async def turn(plan: str) -> None:
        for number in range(10):
            kept = await store.put(plan, f"{number}", "", b"shared by all")
            assert await read(store, plan, kept.digest) == b"shared by all"
            await store.remove(plan)

    await asyncio.gather(*(turn(f"plan-{number}") for number in range(8)))

    assert files_in(tmp_path / "artifacts") == [Path("in-use")]


# --- crashes

CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
from autoglm_server.journal import artifacts
from autoglm_server.journal.artifacts import FolderArtifacts

folder, where = Path(sys.argv[1]), sys.argv[2]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = FolderArtifacts(folder)
    await store.open()
    await store.put("kept", "a", "", b"kept")
    if where == "remove":
        await store.put("gone", "a", "", b"kept")
        await store.put("gone", "b", "", b"gone")
        artifacts._drop_unused = die
        await store.remove("gone")
    elif where == "fsync":
        artifacts.os.fsync = die
    elif where == "content":  # the content is linked, the plan's link not yet
        link = os.link
        artifacts.os.link = lambda source, target: die() if "plans" in str(target) else link(source, target)
    elif where == "sync":  # all is linked, the folders are not synced
        artifacts._sync = die
    await store.put("lost", "b", "", b"lost")
    die()

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["fsync", "content", "sync", "none", "remove"])
async def test_a_kill_at_any_moment_leaves_what_was_kept_and_nothing_that_stays(tmp_path: Path, where: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CRASH, tmp_path, where], check=False)  # noqa: ASYNC221
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "in-use").exists()  # else the next start would not look

    async def known(plan_id: str) -> bool:
        return plan_id == "kept"

    store = FolderArtifacts(tmp_path)
    await store.open()
    await store.sweep(known)
    kept = digest_of(b"kept")
    assert await read(store, "kept", kept) == b"kept"
    await store.close()
    assert files_in(tmp_path) == sorted([Path("content") / kept[7:9] / kept[7:], Path("plans") / "kept" / kept[7:]])


async def test_a_sweep_touches_nothing_that_came_after_the_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, tmp_path, "none"], check=False)  # noqa: ASYNC221
    asked: list[str] = []

    async def known(plan_id: str) -> bool:
        asked.append(plan_id)
        return False

    store = FolderArtifacts(tmp_path)
    await store.open()
    new = await store.put("new", "a", "", b"new")
    await store.sweep(known)

    assert sorted(asked) == ["kept", "lost"]
    assert await read(store, "new", new.digest) == b"new"
    await store.close()


# --- against a model

PLANS = strategies.sampled_from(["a", "b", "c"])
CONTENTS = strategies.sampled_from([b"", b"x", b"y" * 10, b"z" * 11])


class Against(RuleBasedStateMachine):
    """Any order of puts, removes and restarts, clean or not, beside a dict of what each plan has."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.model: dict[str, set[bytes]] = {}
        self.store = self._opened()

    def _opened(self) -> FolderArtifacts:
        store = FolderArtifacts(Path(self.folder.name), plan_bytes=12, durable=False)
        self.loop.run_until_complete(store.open())
        return store

    @rule(plan=PLANS, content=CONTENTS)
    def put(self, plan: str, content: bytes) -> None:
        had = self.model.get(plan, set())
        fits = sum(map(len, had | {content})) <= 12
        try:
            kept = self.loop.run_until_complete(self.store.put(plan, "name", "", content))
        except ArtifactTooLargeError:
            assert not fits
        else:
            assert fits
            assert kept.digest == digest_of(content)
            self.model[plan] = had | {content}

    @rule(plan=PLANS)
    def remove(self, plan: str) -> None:
        self.loop.run_until_complete(self.store.remove(plan))
        self.model.pop(plan, None)

    @rule(clean=strategies.booleans())
    def restart(self, clean: bool) -> None:
        if not clean and self.model:
            (Path(self.folder.name) / "incoming" / "left").write_bytes(b"half")
            stray = Path(self.folder.name) / "content" / "ab"
            stray.mkdir(exist_ok=True)
            (stray / "abc").write_bytes(b"nobody's")

        marker = Path(self.folder.name) / "in-use"
        crashed = not clean and bool(self.model)
        self.loop.run_until_complete(self.store.close())
        if crashed:
            marker.touch()

        self.store = self._opened()

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        folder = Path(self.folder.name)
        for plan in ("a", "b", "c"):
            found = {path.read_bytes() for path in (folder / "plans" / plan).glob("*")}
            assert found == self.model.get(plan, set())

        pool = {path.read_bytes() for path in (folder / "content").rglob("*") if path.is_file()}
        assert pool == set().union(*self.model.values())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()


TestAgainst = Against.TestCase
TestAgainst.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def test_the_model_notices_a_content_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[[str], None] = lambda _content: None  # noqa: E731
    monkeypatch.setattr(module, "_drop_unused", nothing)
    machine = Against()
    try:
        machine.put("a", b"x")
        machine.all_is_as_the_model_says()
        machine.remove("a")
        with pytest.raises(AssertionError):
            machine.all_is_as_the_model_says()
    finally:
        machine.teardown()


async def test_no_part_of_a_path_is_interned(store: FolderArtifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    interned: list[str] = []

    def intern(part: str) -> str:
        interned.append(part)
        return part

    monkeypatch.setattr(sys, "intern", intern)
    assert str(Path("of-the-control", "beside"))
    assert "beside" in interned
    interned.clear()
    kept = await store.put("a-plan", "a", "", b"content")
    assert await read(store, "a-plan", kept.digest) == b"content"
    assert await store.size("a-plan", kept.digest) == 7
    await store.remove("a-plan")
    assert not [part for part in interned if part in ("a-plan", kept.digest[7:], kept.digest[7:9])]
