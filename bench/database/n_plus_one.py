"""Twenty orders with their lines: 1 + 20 statements, a join, two statements, and lines made into JSON beside their order."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab, buffers, explain
from service.foundation.db import Connection
from service.orders.operations import _list_statement

_ORDERS: Final = "SELECT * FROM orders WHERE customer_id = $1 ORDER BY id DESC LIMIT 20"
_LINES: Final = "SELECT * FROM order_line WHERE order_id = $1 ORDER BY line_no"
_LINES_OF: Final = "SELECT * FROM order_line WHERE order_id = ANY ($1::uuid[]) ORDER BY order_id, line_no"
_JOIN: Final = """
SELECT o.*, l.line_no, l.sku, l.quantity, l.unit_price_minor
FROM (SELECT * FROM orders WHERE customer_id = $1 ORDER BY id DESC LIMIT 20) o JOIN order_line l ON l.order_id = o.id
ORDER BY o.id DESC, l.line_no
"""
_SERVICE: Final = _list_statement(by_customer=True, by_status=False, before=False)


class Ways:
    """The ways on one connection; each answers (statements, rows that travelled)."""

    def __init__(self, connection: Connection, customer: str) -> None:
        self.connection, self.customer = connection, customer

    async def n_plus_one(self) -> tuple[int, int]:
        """The list, then its lines one order at a time."""
        orders = await self.connection.fetch(_ORDERS, self.customer)
        lines = [await self.connection.fetch(_LINES, order["id"]) for order in orders]
        return 1 + len(orders), len(orders) + sum(map(len, lines))

    async def two(self) -> tuple[int, int]:
        """The list, then all its lines."""
        orders = await self.connection.fetch(_ORDERS, self.customer)
        lines = await self.connection.fetch(_LINES_OF, [order["id"] for order in orders])
        return 2, len(orders) + len(lines)

    async def join(self) -> tuple[int, int]:
        """One wide row a line."""
        return 1, len(await self.connection.fetch(_JOIN, self.customer))

    async def service(self) -> tuple[int, int]:
        """The service's list: one row an order, its lines as JSON."""
        return 1, len(await self.connection.fetch(*_SERVICE(customer_id=self.customer, limit=20)))


async def run(lab: Lab) -> Finding:
    """Statements and rows of each way, then rounds."""
    found = Finding()
    async with lab.connect() as connection:
        customer = await connection.fetchval("SELECT customer_id FROM orders GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
        ways = Ways(connection, customer)
        ids = [row["id"] for row in await connection.fetch(_ORDERS, customer)]
        plans: dict[str, tuple[str, str, tuple[Any, ...]]] = {
            "the orders, in both of the first two": (_ORDERS, await explain(connection, _ORDERS, customer), ()),
            "lines of one order, 20 times in N + 1": (_LINES, await explain(connection, _LINES, ids[0]), ()),
            "two statements: all lines": (_LINES_OF, await explain(connection, _LINES_OF, ids), ()),
            "join": (_JOIN, await explain(connection, _JOIN, customer), ()),
            "one statement with JSON (service/orders/operations.py)": (_SERVICE.sql, await explain(connection, *_SERVICE(customer_id=customer, limit=20)), ()),
        }  # fmt: skip
        read = {title: buffers(plan) for title, (_, plan, _) in plans.items()}
        orders, line, all_lines, join, service = read.values()
        arms = {
            "N + 1": (ways.n_plus_one, orders + 20 * line),
            "two": (ways.two, orders + all_lines),
            "join": (ways.join, join),
            "JSON": (ways.service, service),
        }
        rows = [(name, *(await way()), touched) for name, (way, touched) in arms.items()]

        async def ten(way: Any) -> None:
            for _ in range(10):
                await way()

        taken = await lab.interleave({name: partial(ten, way) for name, (way, _) in arms.items()})
    found.witness = [Table(("way", "statements", "rows that travel", "buffers"), rows)]
    found.ratios = [ratio(f"time of a page, {name} ÷ JSON", taken[name], taken["JSON"]) for name in ("N + 1", "two", "join")]
    found.bars = [
        Bars(
            "Time of a page of 20 orders, JSON = 1",
            "×",
            [("one statement, lines as JSON", 1.0), *((r.name.split(", ")[1].split(" ÷")[0], r.median) for r in found.ratios)],
        )
    ]
    found.shown = [Shown(title, sql, plan) for title, (sql, plan, _) in plans.items()]
    return found


CHAPTER: Final = Chapter(
    name="n_plus_one",
    title="N + 1 against joins",
    question="How do twenty orders come with their lines?",
    reading=(
        "N + 1 reads no more buffers than the join or the document: the index finds an order's lines whoever asks; one statement for the lines of all "
        "twenty walks it once and reads fewest. What N + 1 pays for is twenty more round trips and twenty more statements, which no plan shows; so statements a request are pinned by a test "
        "(`tests/integration/test_query_plans.py::test_a_list_is_one_statement`). A join sends an order's columns once a line."
    ),
    other=(
        "Two statements, where the client needs rows and not a document, or where two lists hang on an order: joining both would multiply "
        "their rows. A join, where each order has one of the other. N + 1 never; but one order alone is N + 1 with N = 1, and fine."
    ),
    run=run,
)
