"""EXPLAIN as the service's sessions plan: a prepared statement, its generic plan, run with the values given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from service.foundation.db import Connection


async def explain_generic(connection: Connection, options: str, sql: str, values: Sequence[Any]) -> list[str]:
    """Lines of EXPLAIN (`options`). The session must have `plan_cache_mode = force_generic_plan`."""
    if not values:
        return [row[0] for row in await connection.fetch(f"EXPLAIN ({options}) {sql}")]
    await connection.execute(f"PREPARE asked AS {sql}")
    try:
        arguments = ", ".join(map(_literal, values))
        return [row[0] for row in await connection.fetch(f"EXPLAIN ({options}) EXECUTE asked({arguments})")]
    finally:
        await connection.execute("DEALLOCATE asked")


def _literal(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, timedelta):
        return f"'{value.total_seconds()} seconds'"
    if isinstance(value, list):
        return "'{" + ",".join(map(str, value)) + "}'"
    return "'" + str(value).replace("'", "''") + "'"
