"""``artifacts``, and files in ``show`` and ``call``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from autoglm.errors import NotFoundError
from autoglm.model import Artifact, PlanSucceeded, StepStarted, StepSucceeded, ToolResult
from tests.sdk.cli.scripted import PLAN, ScriptedClient, added, cli, created, log, said

CONTENTS = {"chart.png": b"png", "table.csv": b"a,b\n", "../up": b"up"}


def described(name: str, content: bytes, kind: str = "") -> Artifact:
    return Artifact(name, kind, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


def scripted() -> ScriptedClient:
    one = (described("chart.png", b"png", "image/png"), described("table.csv", b"a,b\n", "text/csv"))
    two = (described("chart.png", b"other"), described("../up", b"up"), Artifact("https://example.org", "text/html", 9))
    events = log(
        created(),
        added("one"),
        added("two"),
        said(StepStarted("k"), step="one", attempt=1),
        said(StepStarted("k"), step="two", attempt=1),
        said(StepSucceeded(ToolResult("drawn", one)), step="one", attempt=1),
        said(StepSucceeded(ToolResult("drawn", two)), step="two", attempt=1),
        said(PlanSucceeded()),
    )
    contents = {
        each.digest: content for content in (b"png", b"a,b\n", b"other", b"up") for each in [described("", content)]
    }
    return ScriptedClient({PLAN: list(events)}, contents=contents)


def test_show_lists_files_below_their_step() -> None:
    lines = [line.split() for line in cli("show", PLAN, client=scripted()).out.splitlines()]
    index = lines.index(["chart.png", "image/png", "3", "B", described("", b"png").digest[:19]])

    assert lines[index - 1][0] == "one"
    assert ["https://example.org", "text/html", "9", "B", "(only", "described)"] in lines


def test_the_list() -> None:
    done = cli("artifacts", PLAN, client=scripted())

    assert done.status == 0
    head, *lines = [line.split() for line in done.out.splitlines()]
    assert head == ["step", "size", "type", "digest", "name"]
    assert [line[0] for line in lines] == ["one", "one", "two", "two", "two"]
    assert [line[-1] for line in lines] == ["chart.png", "table.csv", "chart.png", "../up", "https://example.org"]


def test_only_of_a_step_or_by_name() -> None:
    client = scripted()

    assert cli("artifacts", PLAN, "--step", "two", "--name", "*.png", client=client).out.count("chart.png") == 1
    assert cli("artifacts", PLAN, "--name", "*.csv", client=client).out.count("\n") == 2

    none = cli("artifacts", PLAN, "--name", "*.pdf", client=client)
    assert (none.status, none.out, none.err) == (0, "", "No result of the plan has such a file.\n")


def test_a_step_that_is_not_there() -> None:
    done = cli("artifacts", PLAN, "--step", "tow", client=scripted())

    assert done.status == 2
    assert "The plan has no step tow" in done.err


def test_as_json() -> None:
    lines = cli("artifacts", PLAN, "--json", client=scripted()).out.splitlines()

    assert json.loads(lines[0]) == {
        "stepId": "one",
        "name": "chart.png",
        "mediaType": "image/png",
        "sizeBytes": "3",
        "digest": described("", b"png").digest,
    }
    assert len(lines) == 5


def test_save(tmp_path: Path) -> None:
    done = cli("artifacts", PLAN, "--save", str(tmp_path / "out"), client=scripted())

    assert done.status == 0
    saved = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert saved == {"one-chart.png": b"png", "table.csv": b"a,b\n", "two-chart.png": b"other", "_up": b"up"}
    assert done.out.splitlines() == [
        str(tmp_path / "out" / name) for name in ("one-chart.png", "table.csv", "two-chart.png", "_up")
    ]
    assert "https://example.org: only described" in done.err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"mine")
    (tmp_path / "chart.png").write_bytes(b"png")
    client = scripted()
    done = cli("artifacts", PLAN, "--save", str(tmp_path), "--step", "one", client=client)

    assert done.status == 2
    assert f"{tmp_path / 'table.csv'} exists and is another file; --force overwrites it" in done.err
    assert not [asked for asked in client.asked if asked[0] == "save_artifact"]

    forced = cli("artifacts", PLAN, "--save", str(tmp_path), "--step", "one", "--force", "--json", client=client)
    assert forced.status == 0
    assert (tmp_path / "table.csv").read_bytes() == b"a,b\n"
    assert [json.loads(line)["path"] for line in forced.out.splitlines()] == [
        str(tmp_path / "chart.png"),
        str(tmp_path / "table.csv"),
    ]
    # What is the same already is left alone.
    assert [asked[2] for asked in client.asked if asked[0] == "save_artifact"] == ["table.csv"]


def test_a_link_out_of_the_folder_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table.csv").symlink_to(tmp_path / "outside")
    done = cli("artifacts", PLAN, "--save", str(tmp_path / "out"), "--name", "table.csv", client=scripted())

    assert done.status == 2
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("is_link", [True, False])
def test_a_folder_is_in_the_way_of_a_file_even_by_force(tmp_path: Path, is_link: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "away").mkdir()
    place = tmp_path / "out" / "table.csv"
    if is_link:
        place.symlink_to(tmp_path / "away")
    else:
        place.mkdir()

    client = scripted()
    done = cli("artifacts", PLAN, "--save", str(tmp_path / "out"), "--name", "table.csv", "--force", client=client)
    assert done.status == 2
    assert f"{place} is a folder" in done.err
    assert not [asked for asked in client.asked if asked[0] == "save_artifact"]
    assert not [*(tmp_path / "away").iterdir()]


def test_what_cannot_be_saved_is_told_and_the_rest_is_saved(tmp_path: Path) -> None:
    client = scripted()
    gone = NotFoundError("its content is not kept", reason="ARTIFACT_NOT_FOUND")
    client.refuse["save_artifact"] = gone
    done = cli("artifacts", PLAN, "--save", str(tmp_path), client=client)

    assert (done.status, done.out) == (1, "")
    assert done.err.count("its content is not kept") == 4


@pytest.mark.parametrize("name", ["https://example.org", "*.pdf"])
def test_nothing_to_save(tmp_path: Path, name: str) -> None:
    done = cli("artifacts", PLAN, "--save", str(tmp_path / "out"), "--name", name, client=scripted())

    assert done.status == 1
    assert "There is nothing to save." in done.err
    assert not (tmp_path / "out").exists()


def test_force_needs_a_folder() -> None:
    assert cli("artifacts", PLAN, "--force", client=scripted()).status == 2


def test_call_tells_what_it_saved_and_what_it_dropped(tmp_path: Path) -> None:
    client = scripted()
    client.tools.answer = lambda _name, _arguments: ToolResult("ok", (Artifact("a.bin", "", 2048, "sha256:0"),))

    dropped = cli("call", "x", client=client)
    assert (dropped.out, dropped.err) == ("ok\n", "file a.bin (2 KiB): dropped; --save DIR keeps it\n")

    saved = cli("call", "x", "--save", str(tmp_path), client=client)
    assert (saved.out, saved.err) == ("ok\n", f"saved {tmp_path / 'a.bin'} (2 KiB)\n")
