# ruff: noqa: INP001 - a script, no package
"""Draws docs/images/flow.svg: one order's way through the processes. `python docs/images/flow.py` writes it.

tests/budgets/test_docs.py runs it and compares, so the picture and this file cannot drift apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

from drawing import FAINT, OURS, OUTSIDE, STORE, Arrow, Box, legend, page

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


def draw() -> str:
    """The whole picture as SVG text."""
    parts = [
        f'<polyline points="162,285 298,285" fill="none" stroke="{FAINT}" stroke-width="1.6" stroke-dasharray="5 4" marker-end="url(#tip)"/>',
        *(box.svg() for box in BOXES),
        *(arrow.svg() for arrow in ARROWS),
        *(f'<text class="step" x="{x}" y="{y}">{escape(text)}</text>' for x, y, text in NOTES),
        *legend(20, 160, LEGEND),
    ]
    description = "Client to API, one statement in PostgreSQL, relay to Kafka, workers back to PostgreSQL and to the provider."
    return page(960, 560, "The way of an order", description, parts)


if __name__ == "__main__":
    target = Path(__file__).with_name("flow.svg")
    target.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"wrote {target.name}\n")
