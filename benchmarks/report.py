"""Rows as a table, as JSON, and as a plot in SVG; the plot needs no library."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path

from autoglm import __version__
from benchmarks.rows import Row, rounded

BEGIN, END = "<!-- results: python -m benchmarks --markdown FILE -->", "<!-- end of results -->"
_HEAD = ("row", "value", "range", "limit", "ratio", "range", "first bar", "goal", "met", "n")


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for, and how far it came: a table says of itself which run it is of."""

    quick: bool
    rounds: int
    seconds: float
    """How long all of it took."""
    named: tuple[str, ...] = ()
    """The rows that were asked for, by the beginning of their names; empty is all but ``without``."""
    without: tuple[str, ...] = ()
    """The groups that were left out."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """What was asked for and gave no rows, and why."""

    def told(self) -> str:
        minutes = f"{self.seconds / 60:.0f} minutes" if self.seconds >= 90 else f"{self.seconds:.0f} seconds"
        sizes = "small sizes (`--quick`: for development, not for claims)" if self.quick else "full sizes"
        rounds = "one round" if self.rounds == 1 else f"up to {self.rounds} rounds"
        left = f"everything but {_listed(self.without)}" if self.without else "everything"
        what = _listed(self.named) if self.named else left
        missing = [
            f"Without `{name}`, which could not be measured: {' '.join(why.split()).rstrip('.')}."
            for name, why in self.missing.items()
        ]
        return " ".join((f"One run of {minutes} at {sizes}, {rounds}, of {what}.", *missing))


def _listed(names: Sequence[str]) -> str:
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def conditions() -> dict[str, str]:
    """What the figures were taken on, without a name of the machine."""
    return {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "autoglm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop", "apsw")},
    }


def figure(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{rounded(number):.3g}"


def cells(row: Row) -> tuple[str, ...]:
    def span(figures: Sequence[float]) -> str:
        return f"{figure(min(figures))}..{figure(max(figures))}"

    return (
        row.name,
        f"{figure(row.value)} {row.unit}",
        span(row.values),
        figure(row.limit),
        f"{row.ratio:.3g}",
        span(row.ratios),
        row.aim.first_bar.told(row) if row.aim else "",
        row.aim.goal.told(row) if row.aim else "",
        row.met or "",
        str(len(row.values)),
    )


def table(rows: Sequence[Row]) -> str:
    lines = [_HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table as docs/performance.md has it."""
    head = ("what", "value", "limit", "ratio", "first bar", "goal", "met")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]

    for row in rows:
        cell = cells(row)
        what = f"`{row.name}`: {row.note}" if row.note else f"`{row.name}`"
        ratio = f"{cell[4]} [{cell[5]}]"
        lines.append("| " + " | ".join((what, cell[1], f"{cell[3]} ({row.limit_is})", ratio, *cell[6:9])) + " |")

    return "\n".join(lines) + "\n"


def save_markdown(path: Path, rows: Sequence[Row], run: Run) -> None:
    """Put the table into a document, between its marks, in place of all that stood there; a new file is the table alone."""
    told = ", ".join(f"{name} {each}" for name, each in conditions().items())
    text = f"{BEGIN}\n{run.told()} {told[0].upper()}{told[1:]}.\n\n{markdown(rows)}{END}"

    if path.exists() and BEGIN in (old := path.read_text(encoding="utf-8")) and END in old:
        text = old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :]
    else:
        text += "\n"

    path.write_text(text, encoding="utf-8")


def save_json(path: Path, rows: Sequence[Row], run: Run) -> None:
    told = {"conditions": conditions(), "run": asdict(run), "rows": [row.to_object() for row in rows]}
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def save_plot(path: Path, rows: Sequence[Row]) -> None:
    """Draw the ratio of each row with its range, on a logarithmic axis, and its bars."""
    left, width, step, top = 230, 560, 22, 46
    ratios = [each for row in rows for each in row.ratios if each > 0]
    bounds = [bar.bound for row in rows if row.aim for bar in (row.aim.first_bar, row.aim.goal) if bar.of == "ratio"]
    low = math.floor(math.log10(min([*ratios, *bounds, 0.5])) * 2) / 2
    high = math.ceil(math.log10(max([*ratios, *bounds, 2])) * 2) / 2

    def at(ratio: float) -> float:
        return left + (math.log10(max(ratio, 1e-9)) - low) / (high - low) * width

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{top + step * len(rows) + 20}">',
        "<style>text { font: 12px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="16">ratio to the limit (logarithmic); | first bar, || goal; the line is the range</text>',
    ]

    for power in range(math.ceil(low), math.floor(high) + 1):
        x = at(10.0**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 14}" y2="{top + step * len(rows)}" stroke="#ccc"/>')
        parts.append(f'<text x="{x:.1f}" y="{top - 18}" text-anchor="middle" fill="#555">{10.0**power:g}</text>')

    colours = {"goal": "#2a7d2a", "first bar": "#b8860b", "neither": "#b22222", None: "#4a6fa5"}

    for index, row in enumerate(rows):
        y, colour = top + step * index + step / 2, colours[row.met]
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(row.name)}</text>')
        ends = at(min(row.ratios)), at(max(row.ratios))
        parts.append(
            f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<circle cx="{at(row.ratio):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 8}" y="{y + 4:.1f}" fill="{colour}">{row.ratio:.3g}</text>')

        for bar, marks in ((row.aim.first_bar, 1), (row.aim.goal, 2)) if row.aim else ():
            for mark in range(marks if bar.of == "ratio" else 0):
                x = at(bar.bound) + 3 * mark
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}" stroke="#333"/>')

    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def say(text: str) -> None:
    """Tell how far it is; results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)
