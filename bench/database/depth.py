"""Keyset against OFFSET: what page N of the operators' list costs."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from bench.database.findings import Chapter, Finding, Lines, Shown, Table, ratio
from bench.database.lab import Lab, buffers, explain
from service.foundation.db import Connection

_COLUMNS: Final = "id, customer_id, status, version, total_minor, created_at"
_KEYSET: Final = f"SELECT {_COLUMNS} FROM orders WHERE id < $1 ORDER BY id DESC LIMIT 20"
_OFFSET: Final = f"SELECT {_COLUMNS} FROM orders ORDER BY id DESC LIMIT 20 OFFSET $1::int"
_PAGES: Final = (1, 10, 100, 1_000, 4_900)


async def run(lab: Lab) -> Finding:
    """Buffers at each depth, then the deepest page of both in rounds."""
    found, rows, curves = Finding(), [], {"OFFSET": [], "keyset": []}
    async with lab.connect() as connection:
        pages = [page for page in _PAGES if page * 20 < lab.orders]
        for page in pages:
            cursor = await _before(connection, page)
            plans = await explain(connection, _OFFSET, (page - 1) * 20), await explain(connection, _KEYSET, cursor)
            rows.append((page, *map(buffers, plans)))
            for name, plan in zip(curves, plans, strict=True):
                curves[name].append((float(page), float(buffers(plan))))
        found.shown = [Shown(f"OFFSET, page {page:,}", _OFFSET, plans[0]), Shown(f"keyset, page {page:,}", _KEYSET, plans[1])]

        async def offset() -> None:
            for _ in range(10):
                await connection.fetch(_OFFSET, (page - 1) * 20)

        async def keyset() -> None:
            for _ in range(10):
                await connection.fetch(_KEYSET, cursor)

        taken = await lab.interleave({"offset": offset, "keyset": keyset})
    found.witness = [Table(("page", "buffers, OFFSET", "buffers, keyset"), rows)]
    found.ratios = [ratio(f"time of page {page:,}, OFFSET ÷ keyset", taken["offset"], taken["keyset"])]
    found.lines = [Lines("Buffers read for one page of 20", "page", "buffers", list(curves.items()), log_x=True, log_y=True)]
    found.facts = {"page": page, "offset": rows[-1][1], "keyset": rows[-1][2]}
    return found


async def _before(connection: Connection, page: int) -> UUID:
    """The cursor that a client has in hand when it asks for this page."""
    found = await connection.fetchval("SELECT id FROM orders ORDER BY id DESC LIMIT 1 OFFSET $1::int", max(0, (page - 1) * 20 - 1))
    return UUID(int=(1 << 128) - 1) if page == 1 else UUID(str(found))


CHAPTER: Final = Chapter(
    name="depth",
    title="Keyset against OFFSET",
    question="What does page N of a list cost, and does it skip or repeat rows while orders arrive?",
    reading=(
        "OFFSET reads and throws away every row before the page: page {page:,} reads {offset:,} buffers. Keyset starts at the "
        "cursor, so each page reads {keyset:,}. And OFFSET counts from the top, which moves: an order placed between two pages "
        "shows a row twice. `tests/integration/test_lists.py` walks pages under inserts (G4)."
    ),
    other=(
        "OFFSET, where a person must jump to page 37, the table is small, or the order is by something that is not unique and not indexed. "
        "With keyset there is no page number and no total."
    ),
    run=run,
)
