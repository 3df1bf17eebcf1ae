# ruff: noqa: INP001 - a script, no package
"""Draws docs/images/flow.svg: one order's way through the processes. `python docs/images/flow.py` writes it.

tests/budgets/test_docs.py runs it and compares, so the picture and this file cannot drift apart.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 560
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


BOXES = (
    Box(20, 40, 130, 80, "Client", ("token,", "Idempotency-Key"), OUTSIDE),
    Box(330, 30, 210, 100, "API", ("gates: token, limits, body", "201 when all is committed"), OURS),
    Box(750, 40, 190, 80, "Redis", ("buckets, cached copies;", "never the truth"), STORE),
    Box(300, 230, 270, 110, "PostgreSQL", ("the truth: orders, stock, keys,", "payments, outbox, inbox"), STORE),
    Box(750, 245, 190, 80, "Relay", ("one active,", "others stand by"), OURS),
    Box(750, 440, 190, 90, "Kafka", ("events by order id,", "retry and dead-letter topics"), STORE),
    Box(300, 430, 270, 110, "Workers", ("inventory, payments, timeline,", "notifications, cache"), OURS),
    Box(20, 445, 140, 80, "Provider", ("charge, void,", "refund by key"), OUTSIDE),
    Box(20, 245, 140, 80, "Reaper", ("expires orders,", "old keys, old rows"), OURS),
)
ARROWS = (
    Arrow(1, ((150, 80), (328, 80)), (178, 80), (196, 54), ("POST /v1/orders",)),
    Arrow(2, ((540, 80), (748, 80)), (572, 80), (590, 54), ("charge the bucket,",), both_ways=True),
    Arrow(3, ((435, 130), (435, 228)), (435, 160), (452, 165), ("one statement: prices, key, order,", "lines, event, answer")),
    Arrow(4, ((748, 285), (572, 285)), (724, 285), (588, 258), ("oldest events;",), both_ways=True),
    Arrow(5, ((845, 325), (845, 438)), (845, 355), (690, 352), ("publish; wait for", "all acks")),
    Arrow(6, ((748, 485), (572, 485)), (724, 485), (588, 458), ("each key in order",)),
    Arrow(7, ((435, 428), (435, 342)), (435, 398), (452, 380), ("one transaction: inbox row,", "effect, next event")),
    Arrow(8, ((298, 485), (162, 485)), (274, 485), (172, 458), ("outside of any",)),
)
# Second lines of labels that stand below their arrow.
NOTES = (
    (590, 104, "peek at the cache"),
    (588, 308, "move the sent ones"),
    (588, 508, "commit the done prefix"),
    (172, 508, "transaction"),
)
LEGEND = ((OURS, "our processes"), (STORE, "stores"), (OUTSIDE, "outside"))


def _legend() -> list[str]:
    rows = []
    for row, (fill, text) in enumerate(LEGEND):
        y = 160 + 20 * row
        rows.append(f'<rect x="20" y="{y}" width="14" height="14" rx="3" fill="{fill}" stroke="{FAINT}"/>')
        rows.append(f'<text class="note" x="42" y="{y + 11}">{text}</text>')
    return rows


def draw() -> str:
    """The whole picture as SVG text."""
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            'aria-labelledby="title description">'
        ),
        '<title id="title">The way of an order</title>',
        '<desc id="description">Client to API, one statement in PostgreSQL, relay to Kafka, workers back to PostgreSQL and to the provider.</desc>',
        f"<style>\n{_STYLE}\n</style>",
        (
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker></defs>'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        f'<polyline points="162,285 298,285" fill="none" stroke="{FAINT}" stroke-width="1.6" stroke-dasharray="5 4" marker-end="url(#tip)"/>',
        *(box.svg() for box in BOXES),
        *(arrow.svg() for arrow in ARROWS),
        *(f'<text class="step" x="{x}" y="{y}">{escape(text)}</text>' for x, y, text in NOTES),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    target = Path(__file__).with_name("flow.svg")
    target.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"wrote {target.name}\n")
