"""Line plots as SVG text: axes with round numbers, a legend, shaded events. No library, so that a report is one small file.

Colours are told apart by people who see red and green alike (Okabe–Ito); lines also differ in dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3")
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 40
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot; `dots`: points only."""

    name: str
    points: Points
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn, and what its axes mean."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    shaded: Sequence[tuple[float, float, str]] = ()
    limit: tuple[float, str] | None = None
    log_y: bool = False
    log_x: bool = False
    width: int = 620
    height: int = 270


def draw(plot: Plot) -> str:
    """The plot as an `<svg>` element."""
    values = [(x, y) for line in plot.lines for x, y in line.points if math.isfinite(y)]
    if not values:
        empty = f'<text x="10" y="30" {_font(12)}>{escape(plot.title)}: nothing was seen</text>'
        return f'<svg viewBox="0 0 {plot.width} 60" width="{plot.width}" xmlns="http://www.w3.org/2000/svg">{empty}</svg>'
    frame = _Frame(plot, values)
    parts = [f'<svg viewBox="0 0 {plot.width} {plot.height}" width="{plot.width}" xmlns="http://www.w3.org/2000/svg" role="img">']
    parts.append(f"<title>{escape(plot.title)}</title>")
    parts.append(f'<rect width="{plot.width}" height="{plot.height}" fill="#fff"/>')
    parts.append(f'<text x="{_LEFT}" y="15" font-weight="600" {_font(12)}>{escape(plot.title)}</text>')
    parts += [*_shades(plot, frame), *_axes(plot, frame), *_limit(plot, frame), *_lines(plot, frame), *_legend(plot)]
    return "".join([*parts, "</svg>"])


def side_by_side(left: str, right: str, *, width: int = 620, height: int = 270) -> str:
    """Two drawn plots as one picture."""
    moved = right.replace("<svg ", f'<svg x="{width}" ', 1)
    return f'<svg viewBox="0 0 {2 * width} {height}" width="{2 * width}" xmlns="http://www.w3.org/2000/svg">{left}{moved}</svg>'


class _Frame:
    """From values to pixels."""

    def __init__(self, plot: Plot, values: Sequence[tuple[float, float]]) -> None:
        self.low_x, self.high_x = min(x for x, _ in values), max(x for x, _ in values)
        highest = max([y for _, y in values] + ([plot.limit[0]] if plot.limit else []))
        lowest = min((y for _, y in values if y > 0), default=1.0)
        self._log, self._plot = plot.log_y, plot
        self.low_y = 10 ** math.floor(math.log10(lowest)) if plot.log_y else 0.0
        self.high_y = 10 ** math.ceil(math.log10(max(highest, self.low_y * 10))) if plot.log_y else (_ceiling(highest) or 1.0)

    def x(self, value: float) -> float:
        low, high, at = self.low_x, self.high_x, value
        if self._plot.log_x:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return _LEFT + (at - low) / ((high - low) or 1.0) * (self._plot.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        bottom, room = self._plot.height - _BOTTOM, self._plot.height - _TOP - _BOTTOM
        share = value / self.high_y
        if self._log:
            share = math.log10(max(value, self.low_y) / self.low_y) / math.log10(self.high_y / self.low_y)
        return bottom - min(1.0, max(0.0, share)) * room

    def ticks_y(self) -> list[float]:
        if self._log:
            return [10**k for k in range(round(math.log10(self.low_y)), round(math.log10(self.high_y)) + 1)]
        step = _step(self.high_y, 4)
        return [step * k for k in range(int(self.high_y / step + 0.001) + 1)]

    def ticks_x(self) -> list[float]:
        if self._plot.log_x:
            powers = range(math.ceil(math.log10(self.low_x)), math.floor(math.log10(self.high_x)) + 1)
            return [10**k for k in powers] if len(powers) > 2 else [2.0**k for k in range(int(math.log2(self.high_x)) + 1) if 2**k >= self.low_x]
        step = _step(self.high_x - self.low_x or 1.0, 6)
        first = math.ceil(self.low_x / step - 0.001)
        return [step * k for k in range(first, int(self.high_x / step + 0.001) + 1)]


def _axes(plot: Plot, frame: _Frame) -> list[str]:
    right, bottom = plot.width - _RIGHT, plot.height - _BOTTOM
    parts = []
    for tick in frame.ticks_y():
        y = frame.y(tick)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {_font(10)}>{_short(tick)}</text>')
    for tick in frame.ticks_x():
        x = frame.x(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}" stroke="#888"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle" {_font(10)}>{_short(tick)}</text>')
    parts.append(f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#888"/>')
    parts.append(f'<text x="{(right + _LEFT) / 2}" y="{plot.height - 6}" text-anchor="middle" {_font(10)}>{escape(plot.x)}</text>')
    middle = (bottom + _TOP) / 2
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})" {_font(10)}>{escape(plot.y)}</text>')
    return parts


def _lines(plot: Plot, frame: _Frame) -> list[str]:
    parts = []
    for index, line in enumerate(plot.lines):
        colour, dash = COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)]
        if line.dots:
            parts += [f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in line.points if math.isfinite(y)]
            continue
        for stretch in _stretches(line.points):
            path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in stretch)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>')
    return parts


def _stretches(points: Points) -> list[list[tuple[float, float]]]:
    """Where nothing was answered there is a gap, not a line."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            found[-1].append((x, y))
        elif found[-1]:
            found.append([])
    # A single point has no length: drawn as a short dash.
    return [stretch if len(stretch) > 1 else [stretch[0], (stretch[0][0] + 0.15, stretch[0][1])] for stretch in found if stretch]


def _legend(plot: Plot) -> list[str]:
    parts, x = [], float(_LEFT)
    for index, line in enumerate(plot.lines):
        colour, dash = COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)]
        if line.dots:
            parts.append(f'<circle cx="{x + 10}" cy="25" r="3.5" fill="{colour}"/>')
        else:
            parts.append(f'<line x1="{x}" y1="25" x2="{x + 20}" y2="25" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{x + 24}" y="29" {_font(10)}>{escape(line.name)}</text>')
        x += 36 + 5.9 * len(line.name)
    return parts


def _shades(plot: Plot, frame: _Frame) -> list[str]:
    parts = []
    for begin, end, name in plot.shaded:
        left, right = frame.x(max(begin, frame.low_x)), frame.x(min(end, frame.high_x))
        if right > left:
            parts.append(f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{plot.height - _TOP - _BOTTOM}" fill="#f3e3c3"/>')
            parts.append(f'<text x="{left + 4:.1f}" y="{_TOP + 12}" {_font(10)} fill="#7a5a10">{escape(name)}</text>')
    return parts


def _limit(plot: Plot, frame: _Frame) -> list[str]:
    if plot.limit is None:
        return []
    y = frame.y(plot.limit[0])
    return [
        f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{plot.width - _RIGHT}" y2="{y:.1f}" stroke="#b00020" stroke-dasharray="3 3"/>',
        f'<text x="{plot.width - _RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end" fill="#b00020" {_font(10)}>{escape(plot.limit[1])}</text>',
    ]


def _font(size: int) -> str:
    return f'font-family="system-ui,DejaVu Sans,sans-serif" font-size="{size}"'


def _step(span: float, wanted: int) -> float:
    rough = span / wanted
    power = 10 ** math.floor(math.log10(rough))
    return float(next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999))


def _ceiling(value: float) -> float:
    if value <= 0:
        return 0.0
    step = _step(value, 4)
    return step * math.ceil(value / step - 0.001)


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"
