"""Bars as SVG text, and lines by the load report's plots; colours that people who see red and green alike can tell apart."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from bench.database.findings import Bars, Lines
from loadtests.report.plots import COLOURS, Line, Plot, draw

_FONT: Final = 'font-family="system-ui, sans-serif"'
_NAMES, _WIDE, _ROW = 250, 300, 24
_LETTER = 6.2  # an average one at this size


def bars(data: Bars) -> str:
    """One row a bar; on a logarithmic scale the smallest is still visible."""
    height = 50 + _ROW * len(data.bars)
    names = max(_NAMES, round(_LETTER * max(len(name) for name, _ in data.bars)) + 16)
    width = names + _WIDE + 110
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{escape(data.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="18" font-size="12" font-weight="600" {_FONT}>{escape(data.title)}</text>',
    ]
    values = [value for _, value in data.bars]
    for number, (name, value) in enumerate(data.bars):
        y, length = 32 + _ROW * number, _length(value, values, log=data.log)
        rows += [
            f'<text x="{names - 8}" y="{y + 13}" text-anchor="end" font-size="11" {_FONT}>{escape(name)}</text>',
            f'<rect x="{names}" y="{y}" width="{length:.1f}" height="17" rx="2" fill="{COLOURS[name in data.other]}"/>',
            f'<text x="{names + length + 6:.1f}" y="{y + 13}" font-size="11" {_FONT}>{number_text(value)} {escape(data.unit)}</text>',
        ]
    notes = [f"orange: {data.other_is}"] * bool(data.other) + ["logarithmic scale"] * data.log
    rows.append(f'<text x="{names}" y="{height - 5}" font-size="10" fill="#666" {_FONT}>{escape("; ".join(notes))}</text>')
    return "\n".join([*rows, "</svg>"]) + "\n"


def _length(value: float, values: list[float], *, log: bool) -> float:
    highest = max(values) or 1.0
    if not log:
        return _WIDE * value / highest
    low = min((v for v in values if v > 0), default=1.0) / 2
    return _WIDE * math.log(max(value, low) / low) / math.log(highest / low) if value > 0 else 0.0


def lines(data: Lines) -> str:
    """Lines or dots over a common axis; stretches of time are shaded."""
    drawn = [Line(name, [(x, y) for x, y in points], dots=data.dots) for name, points in data.lines]
    stretches = [(begin, end, name) for begin, end, name in data.shaded]
    return draw(Plot(data.title, data.x, data.y, drawn, shaded=stretches, log_x=data.log_x, log_y=data.log_y)) + "\n"


def number_text(value: object) -> str:
    """Thousands apart, three digits where they say something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
