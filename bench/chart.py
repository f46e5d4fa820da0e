"""A picture of ratios as SVG: one row for each, a dot at the median, a line from the lowest to the highest pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

ROW_PX, HEADING_PX, MARGIN_PX, AXIS_PX = 20, 34, 16, 40
LABEL_PX, PLOT_PX, VALUE_PX = 520, 560, 110
WIDTH_PX = MARGIN_PX + LABEL_PX + PLOT_PX + VALUE_PX + MARGIN_PX
LABEL_CHARACTERS = 84
DOT_PX, TICK_PX = 4, 7

COLORS = {"met": "#1a7f37", "missed": "#cf222e", "": "#57606a"}
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .heading { font-weight: 600 } .small { font-size: 11px; fill: #57606a }
  .grid { stroke: #d0d7de } .one { stroke: #1f2328; stroke-dasharray: 3 3 } .bound { stroke: #bf8700; stroke-width: 2 }
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio, its spread, and where it shall be if anywhere; `verdict` is met, missed or empty."""

    label: str
    ratio: float
    low: float
    high: float
    bound: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under a heading."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Places ratios on a logarithmic axis: twice as much is as far as half as much."""

    low: int
    high: int

    def x(self, ratio: float) -> float:
        share = (log10(ratio) - self.low) / (self.high - self.low)
        return MARGIN_PX + LABEL_PX + PLOT_PX * min(1.0, max(0.0, share))

    @property
    def marks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def picture(groups: Sequence[Group]) -> str:
    """Draw the groups below each other."""
    groups = [group for group in groups if group.rows]
    rows = [row for group in groups for row in group.rows]
    height = AXIS_PX + sum(HEADING_PX + ROW_PX * len(group.rows) for group in groups) + MARGIN_PX
    scale = _scale(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        *_axis(scale, height),
    ]
    y = AXIS_PX
    for group in groups:
        y += HEADING_PX
        parts.append(_text(MARGIN_PX, y - 10, group.heading, "heading"))
        for row in group.rows:
            parts += _row(scale, row, y + ROW_PX / 2)
            y += ROW_PX
    return "\n".join((*parts, "</svg>", ""))


def _scale(rows: Iterable[Row]) -> _Scale:
    """Take whole powers of ten around all that is shown, and at least 0.1 to 10."""
    shown = [number for row in rows for number in (row.low, row.high, row.bound) if number]
    return _Scale(
        min([-1, *(floor(log10(number)) for number in shown)]), max([1, *(ceil(log10(number)) for number in shown)])
    )


def _axis(scale: _Scale, height: int) -> Iterator[str]:
    yield _text(MARGIN_PX, 24, "ratio: ours / theirs, median and all pairs; yellow: what is asked for", "small")
    for mark in scale.marks:
        x = scale.x(mark)
        kind = "one" if mark == 1 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{AXIS_PX - 6}" y2="{height - MARGIN_PX}"/>'
        yield _text(x, AXIS_PX - 12, f"{mark:g}", "small", anchor="middle")


def _row(scale: _Scale, row: Row, y: float) -> Iterator[str]:
    color = COLORS[row.verdict]
    label = row.label if len(row.label) <= LABEL_CHARACTERS else f"{row.label[: LABEL_CHARACTERS - 1]}…"
    low, high, at = scale.x(max(row.low, 1e-9)), scale.x(max(row.high, 1e-9)), scale.x(max(row.ratio, 1e-9))
    yield _text(MARGIN_PX, y + 4, label)
    if row.bound is not None:
        x = scale.x(row.bound)
        yield f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="{y - TICK_PX:g}" y2="{y + TICK_PX:g}"/>'
    yield f'<line stroke="{color}" stroke-width="2" x1="{low:.1f}" x2="{high:.1f}" y1="{y:g}" y2="{y:g}"/>'
    yield f'<circle fill="{color}" cx="{at:.1f}" cy="{y:g}" r="{DOT_PX}"/>'
    value = f"{row.ratio:.3g}" + (f" {row.verdict}" if row.verdict else "")
    yield _text(WIDTH_PX - MARGIN_PX, y + 4, value, anchor="end")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
