# ruff: noqa: INP001 - a module of scripts, no package
"""Boxes, arrows and the page that the pictures of this folder are made of; no script of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

INK, FAINT, PAPER = "#1b2733", "#5b6b7a", "#ffffff"
OURS, STORE, OUTSIDE = "#e6f0fa", "#fdf1dc", "#eef1f4"
_STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1b2733; }
  .name { font-size: 16px; font-weight: 600; } .note { font-size: 12.5px; fill: #44525f; }
  .step { font-size: 12.5px; fill: #1b2733; } .number { font-size: 12px; font-weight: 700; fill: #ffffff; }
""".strip("\n")


@dataclass(frozen=True)
class Box:
    """A process or a store; `lines` say what it does."""

    x: int
    y: int
    width: int
    height: int
    name: str
    lines: tuple[str, ...]
    fill: str

    def svg(self) -> str:
        middle = self.x + self.width / 2
        rows = [f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="9" fill="{self.fill}" stroke="{FAINT}"/>']
        top = self.y + self.height / 2 - 9 * len(self.lines) + 4
        rows.append(f'<text class="name" x="{middle:g}" y="{top:g}" text-anchor="middle">{escape(self.name)}</text>')
        for number, line in enumerate(self.lines, start=1):
            rows.append(f'<text class="note" x="{middle:g}" y="{top + 18 * number:g}" text-anchor="middle">{escape(line)}</text>')
        return "\n".join(rows)


@dataclass(frozen=True)
class Arrow:
    """A numbered step along `points`; its words start at `label`."""

    number: int
    points: tuple[tuple[int, int], ...]
    badge: tuple[int, int]
    label: tuple[int, int]
    lines: tuple[str, ...]
    both_ways: bool = False

    def svg(self) -> str:
        path = " ".join(f"{x},{y}" for x, y in self.points)
        start = ' marker-start="url(#tip)"' if self.both_ways else ""
        rows = [f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.6" marker-end="url(#tip)"{start}/>']
        rows.append(f'<circle cx="{self.badge[0]}" cy="{self.badge[1]}" r="10" fill="{INK}"/>')
        rows.append(f'<text class="number" x="{self.badge[0]}" y="{self.badge[1] + 4}" text-anchor="middle">{self.number}</text>')
        for row, line in enumerate(self.lines):
            rows.append(f'<text class="step" x="{self.label[0]}" y="{self.label[1] + 16 * row}">{escape(line)}</text>')
        return "\n".join(rows)


def legend(x: int, y: int, entries: Iterable[tuple[str, str]]) -> list[str]:
    """What the fills mean, one below the other."""
    rows = []
    for row, (fill, text) in enumerate(entries):
        top = y + 20 * row
        rows.append(f'<rect x="{x}" y="{top}" width="14" height="14" rx="3" fill="{fill}" stroke="{FAINT}"/>')
        rows.append(f'<text class="note" x="{x + 22}" y="{top + 11}">{text}</text>')
    return rows


def page(width: int, height: int, title: str, description: str, parts: Iterable[str]) -> str:
    """The whole picture as SVG text."""
    head = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            'aria-labelledby="title description">'
        ),
        f'<title id="title">{title}</title>',
        f'<desc id="description">{description}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        (
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker></defs>'
        ),
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"
