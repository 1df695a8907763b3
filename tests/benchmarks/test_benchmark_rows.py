"""What the benchmarks say of figures; the figures themselves are no test's business."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import floor, report
from benchmarks.command import GROUPS, chosen
from benchmarks.load import quantile
from benchmarks.report import Run
from benchmarks.rows import Aim, Options, Row, at_least, at_most, below
from benchmarks.shapes import chain, critical_path, fan, random_layers, two_chains


def a_row(aim: Aim | None = None, values: tuple[float, ...] = (10.0, 90.0, 20.0)) -> Row:
    return Row("steps.64", "steps/s", values, (20.0, 100.0, 100.0), "the floor", aim)


def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    row = a_row()
    assert row.ratios == [0.5, 0.9, 0.2]
    assert row.ratio == 0.5
    assert row.value / row.limit == 0.2


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (None, None),
        (at_least(0.3, 0.5), "goal"),
        (at_least(0.3, 0.6), "first bar"),
        (at_least(0.6, 0.7), "neither"),
        (at_most(0.6, 0.5), "goal"),
        (at_most(0.6, 0.4), "first bar"),
        (at_most(0.4, 0.3), "neither"),
        (below(30, 20), "goal"),
        (below(20, 19), "first bar"),
        (below(19, 1), "neither"),
    ],
)
def test_a_row_meets_the_highest_bar_that_holds(aim: Aim | None, met: str | None) -> None:
    assert a_row(aim).met == met


def test_the_json_has_every_field_that_a_reader_of_it_relies_on(tmp_path: Path) -> None:
    report.save_json(tmp_path / "rows.json", [a_row(at_least(0.3, 0.6))], Run(quick=True, rounds=3, seconds=7))
    told = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert told["run"]["quick"] is True
    (row,) = told["rows"]
    assert {
        name: row[name] for name in ("name", "unit", "value", "limit", "ratio", "first_bar", "goal", "met", "n")
    } == {
        "name": "steps.64",
        "unit": "steps/s",
        "value": 20.0,
        "limit": 100.0,
        "ratio": 0.5,
        "first_bar": ">= 0.3",
        "goal": ">= 0.6",
        "met": "first bar",
        "n": 3,
    }
    assert row["range"] == {"value": [10.0, 90.0], "limit": [20.0, 100.0], "ratio": [0.2, 0.9]}


def test_the_tables_and_the_plot_have_a_line_for_each_row(tmp_path: Path) -> None:
    rows = [a_row(at_least(0.3, 0.6)), a_row(below(100, 80)), a_row()]
    assert len(report.table(rows).splitlines()) == 4
    assert len(report.markdown(rows).splitlines()) == 5
    report.save_plot(tmp_path / "plot.svg", rows)
    drawn = ET.parse(tmp_path / "plot.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == 3


def test_the_table_in_a_document_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n", encoding="utf-8")
    report.save_markdown(page, [a_row()], Run(quick=False, rounds=5, seconds=1830, without=("peers",)))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `steps.64` |" in text
    assert "One run of 30 minutes at full sizes, up to 5 rounds, of everything but `peers`. Cores " in text


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (Run(False, 1, 2000), "One run of 33 minutes at full sizes, one round, of everything."),
        (
            Run(True, 2, 12, named=("steps.64", "latency", "codec"), without=("growth",)),
            (
                "One run of 12 seconds at small sizes (`--quick`: for development, not for claims), up to 2 rounds, of "
                "`steps.64`, `latency` and `codec`."
            ),
        ),
        (
            Run(False, 3, 600, without=("model", "peers"), missing={"growth": "TimeoutError: late.\nVery."}),
            (
                "One run of 10 minutes at full sizes, up to 3 rounds, of everything but `model` and `peers`. "
                "Without `growth`, which could not be measured: TimeoutError: late. Very."
            ),
        ),
    ],
)
def test_a_table_says_which_run_it_is_of_and_what_is_not_in_it(run: Run, told: str) -> None:
    assert run.told() == told


def test_names_choose_groups_and_rows() -> None:
    assert chosen(["steps", "latency.p99", "submit.rate"]) == {
        "steps": ("steps", "latency.p99"),
        "submit": ("submit.rate",),
    }
    assert "peers" not in chosen([])
    assert set(chosen([])) == set(GROUPS) - {"peers"}
    assert set(chosen([], peers_too=True)) == set(GROUPS)
    with pytest.raises(ValueError, match="'nothing' is no benchmark; there are steps"):
        chosen(["nothing"])


@pytest.mark.parametrize(
    ("only", "name", "wanted"),
    [
        ((), "steps.64", True),
        (("steps",), "steps.64.each", True),
        (("steps.64",), "steps.64.each", True),
        (("steps.64.each",), "steps.64", True),  # what contains it must be measured
        (("steps.6",), "steps.64", False),
        (("latency",), "steps.64", False),
    ],
)
def test_rows_are_chosen_by_the_beginning_of_their_names(only: tuple[str, ...], name: str, wanted: bool) -> None:
    assert Options(only=only).wanted(name) is wanted


def test_the_shapes_have_the_critical_paths_that_the_goals_are_about() -> None:
    assert critical_path(two_chains()) == pytest.approx(0.5)
    assert critical_path(random_layers()) == pytest.approx(0.549, abs=0.001)
    assert critical_path(fan(200)) == pytest.approx(0.05)
    assert critical_path(chain(100)) == 0


def test_the_floor_joins_events_as_protobuf_would() -> None:
    events = [floor.event(1, number, "step-1", "step.started") for number in range(300)]
    events[7].payload = b"x" * 1000  # its length takes two bytes
    joined = floor.joined([event.SerializeToString() for event in events])
    assert floor.Batch.FromString(joined) == floor.Batch(events=events)


def test_an_event_of_the_floor_is_as_large_as_the_one_its_figures_were_taken_with() -> None:
    assert 150 <= len(floor.event(3, 1000, "step-1", "step.succeeded").SerializeToString()) <= 160


def test_a_quantile_is_one_of_the_figures() -> None:
    assert [quantile([3, 1, 2], part) for part in (0, 0.5, 0.99, 1)] == [1, 2, 3, 3]
