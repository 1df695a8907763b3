"""Draws the rows of a result as a chart, in PNG."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from autoglm._dataclasses import dataclass
from autoglm.model import Json
from autoglm.tool import ToolError
from autoglm_server.spelling import nearest
from autoglm_server.tools.tables.engine import Rows
from autoglm_server.tools.tables.request import Chart
from autoglm_server.tools.tables.values import is_moment, is_number

POINTS_MAX: Final = 10_000
"""How many rows a chart of lines or points may show."""
BARS_MAX: Final = 200
"""How many bars, or slices of a pie, there may be."""
SERIES_MAX: Final = 12
LABELS_MAX: Final = 24
"""How many texts there may be along the horizontal axis; of more, these stand evenly apart. Each costs time to place."""
_LABEL_MAX = 40
_TITLE_MAX = 120
_SIZE = (9.6, 5.4)
_DPI = 125
_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)
"""Fonts with Chinese characters; matplotlib's own has none."""


_MISSING_TOLD: Final = 20
_MISSING = re.compile(r"Glyph (\d+) \(.*\) missing from font")
"""What matplotlib warns of; it draws a box instead."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in PNG, and the characters that it shows as boxes because no installed font has them."""

    png: bytes
    missing: str = ""

    @property
    def note(self) -> str:
        """Say of the missing characters what would help; empty if there are none."""
        if not self.missing:
            return ""

        shown = self.missing[:_MISSING_TOLD] + ("…" if len(self.missing) > _MISSING_TOLD else "")
        return f"chart.png shows boxes for {shown}: no font on the server has them; install one, such as Noto Sans CJK"


def draw(rows: Rows, chart: Chart) -> Drawing:
    """Give the chart.

    Raises:
        ToolError: INVALID_CHART; the message names the column and says what would do.
    """
    xs, series = _read(rows, chart)

    # Imported late: it takes most of a second, and only charts need it.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: dict[str, Any] = {"font.family": _fonts(), "text.parse_math": False, "axes.unicode_minus": False}
    with mpl.rc_context(style), warnings.catch_warnings(record=True) as warned:  # type: ignore[arg-type]  # its keys are literals
        warnings.simplefilter("always")
        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        _plot(axes, chart.kind, _placed(axes, xs) if chart.kind in ("line", "scatter") else xs, series)
        if chart.kind != "pie":
            axes.set_xlabel(_short(chart.x or rows.columns[0].name, _LABEL_MAX))
            axes.grid(visible=True, alpha=0.3)
            if len(series) > 1:
                axes.legend()
            else:
                axes.set_ylabel(_short(next(iter(series)), _LABEL_MAX))

        if chart.title:
            axes.set_title(_short(chart.title, _TITLE_MAX))

        out = io.BytesIO()
        try:
            figure.savefig(out, format="png")
        except (ValueError, OverflowError) as error:
            told = (
                f"the values cannot be drawn, they lie too far apart or out of range: {_short(str(error), _TITLE_MAX)}"
            )
            raise ToolError(told, reason="INVALID_CHART") from None

    found = [_MISSING.match(str(one.message)) for one in warned]
    return Drawing(out.getvalue(), "".join(dict.fromkeys(chr(int(match[1])) for match in found if match)))


def _plot(axes: Any, kind: str, xs: Sequence[Any], series: dict[str, list[float | None]]) -> None:
    match kind:
        case "line":
            for name, ys in series.items():
                axes.plot(xs, _gaps(ys), label=_short(name, _LABEL_MAX), marker="." if len(xs) <= 50 else "")
        case "scatter":
            for name, ys in series.items():
                axes.scatter(xs, _gaps(ys), label=_short(name, _LABEL_MAX), s=14)
        case "bar":
            _bars(axes, xs, series)
        case _:
            (ys,) = series.values()
            axes.pie([value or 0.0 for value in ys], labels=[_label(x) for x in xs], autopct="%1.1f%%")

    if kind in ("line", "scatter") and xs and isinstance(xs[0], datetime):
        axes.tick_params(axis="x", rotation=30)


def _placed(axes: Any, xs: Sequence[Any]) -> Sequence[Any]:
    """Give where the values stand along the horizontal axis: texts one after the other, the same text at the same place."""
    if not isinstance(xs[0], str):
        return xs

    places = {text: place for place, text in enumerate(dict.fromkeys(xs))}
    shown = list(places)[:: -(-len(places) // LABELS_MAX)]
    axes.set_xticks([places[text] for text in shown], shown, rotation=30)
    return [places[text] for text in xs]


def _bars(axes: Any, xs: Sequence[Any], series: dict[str, list[float | None]]) -> None:
    width = 0.8 / len(series)
    for index, (name, ys) in enumerate(series.items()):
        at = [place + (index - (len(series) - 1) / 2) * width for place in range(len(xs))]
        axes.bar(at, [value or 0.0 for value in ys], width, label=_short(name, _LABEL_MAX))

    labels = [_label(x) for x in xs]
    axes.set_xticks(range(len(xs)), labels, rotation=30 if max(map(len, labels)) > 8 or len(xs) > 12 else 0)


def _read(rows: Rows, chart: Chart) -> tuple[list[Any], dict[str, list[float | None]]]:
    """Give the values along the horizontal axis, and the numbers of each series."""
    if not rows.cells:
        raise ToolError("the result has no rows, so there is nothing to draw", reason="INVALID_CHART")

    most = POINTS_MAX if chart.kind in ("line", "scatter") else BARS_MAX
    if rows.truncated or len(rows.cells) > most:
        remedy = "aggregate it, or add LIMIT"
        raise ToolError(f"a {chart.kind} chart shows at most {most} rows; {remedy}", reason="INVALID_CHART")

    x = _column(rows, chart.x, "x") if chart.x else 0
    wanted = chart.y or [
        column.name for index, column in enumerate(rows.columns) if index != x and is_number(column.type)
    ]
    if chart.kind == "pie":
        wanted = wanted[:1] if not chart.y else wanted

    if not wanted or len(wanted) > (1 if chart.kind == "pie" else SERIES_MAX):
        number = "one column" if chart.kind == "pie" else f"1 to {SERIES_MAX} columns"
        raise ToolError(f"a {chart.kind} chart needs {number} of numbers; name them in chart.y", reason="INVALID_CHART")

    series = {name: _numbers(rows, _column(rows, name, "y"), chart.kind) for name in wanted}
    return _along(rows, x), series


def _column(rows: Rows, name: str, field: str) -> int:
    names = [column.name for column in rows.columns]
    for index, known in enumerate(names):
        if known.casefold() == name.casefold():
            return index

    near = nearest(name, names)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, names[:10]))}"
    raise ToolError(f"chart.{field} is {name!r}, and the result has no such column; {hint}", reason="INVALID_CHART")


def _numbers(rows: Rows, index: int, kind: str) -> list[float | None]:
    column = rows.columns[index]
    if not is_number(column.type):
        remedy = "choose a column of numbers, or CAST it in sql"
        raise ToolError(f"chart.y is {column.name!r}, of type {column.type}; {remedy}", reason="INVALID_CHART")

    found = [None if row[index] is None else float(row[index]) for row in rows.cells]
    if kind == "pie" and not all(value is None or 0 <= value < math.inf for value in found):
        told = f"chart.y is {column.name!r} and has negative or infinite numbers; a pie has none"
        raise ToolError(told, reason="INVALID_CHART")

    if kind == "pie" and not any(found):
        raise ToolError(f"chart.y is {column.name!r} and is 0 everywhere; a pie needs more", reason="INVALID_CHART")

    return found


def _along(rows: Rows, index: int) -> list[Any]:
    kind = rows.columns[index].type
    values = [row[index] for row in rows.cells]
    if is_number(kind) and None not in values:
        return [float(value) for value in values]

    moments = [_moment(value) for value in values] if is_moment(kind) else []
    return moments if moments and None not in moments else [_label(value) for value in values]


def _moment(value: Json) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _gaps(ys: Sequence[float | None]) -> list[float]:
    return [float("nan") if y is None else y for y in ys]


def _label(value: Json) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)

    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes").removesuffix(" 00:00")

    return _short("" if value is None else str(value), _LABEL_MAX)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fonts() -> list[str]:
    from matplotlib import font_manager  # noqa: PLC0415 - as above

    known = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(font for font in _FONTS if font in known)]
