"""`python -m tests.proofs race|stampede|faults|overload|stores|pages|all`: measure, keep in docs/measured; `pages` renders them.

Each experiment starts its own servers and ends them. With all of them: about ten minutes on two cores.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from service.dev.seed import seed_catalogue
from service.foundation.db import Database
from service.migrations import upgrade
from service.settings import load_settings
from tests.budgets.measure import ROOT, code_lines
from tests.proofs.cache_faults import Row, run_postgres_away, run_redis_faults
from tests.proofs.overload import draw_curve
from tests.proofs.pages import store, write_pages
from tests.proofs.race import run_race
from tests.proofs.race_member import patient
from tests.proofs.stampede import ARMS, run_stampede
from tests.proofs.stores import compare_stores
from tests.stories.shop import open_shop, running_shop
from tests.support.servers import Servers, running_servers


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


async def _race(_: Servers) -> None:
    outcomes = []
    for arm in ("guarded", "deleting"):
        outcomes.append(asdict(await run_race(load_settings(), os.environ, arm, keys=500, writes=10, processes=4)))
        _say(f"{arm}: {outcomes[-1]['updates']} updates, {outcomes[-1]['stale']} of {outcomes[-1]['keys']} keys stale for ever")
    store("race", outcomes)


async def _stampede(_: Servers) -> None:
    found = []
    for arm in ARMS:
        found.append(asdict(await run_stampede(load_settings(), os.environ, arm)))
        _say(f"{arm}: {found[-1]['loads']} loads")
    store("stampede", found)


async def _overload(servers: Servers) -> None:
    store("overload", [asdict(point) for point in await draw_curve(servers, _say)])


async def _stores(servers: Servers) -> None:
    store("stores", await compare_stores(servers, _say))


_ON_SERVERS: dict[str, Callable[[Servers], Awaitable[None]]] = {
    "race": _race, "stampede": _stampede, "overload": _overload, "stores": _stores,
}  # fmt: skip


def _on_servers(names: list[str]) -> None:
    with running_servers() as servers:
        os.environ.update(servers.environment())
        upgrade()
        for name in names:
            print(name, flush=True)
            asyncio.run(_seeded(_ON_SERVERS[name], servers))


async def _seeded(experiment: Callable[[Servers], Awaitable[None]], servers: Servers) -> None:
    db = Database(patient(load_settings().db, pool_size=1), application="proofs")
    await db.open()
    await seed_catalogue(db)
    await db.close()
    await experiment(servers)


def _plain(row: Row) -> dict[str, Any]:
    """As JSON takes it."""
    return {name: dict(value) if isinstance(value := getattr(row, name), Counter) else value for name in Row.__slots__}


async def _faults() -> None:
    print("faults", flush=True)
    with running_shop(api=2) as home:
        async with open_shop(home) as shop:
            rows = [_plain(row) for row in await run_redis_faults(shop)]
            for row in rows:
                _say(f"{row['fault']}: {row['reads']} reads, {row['wrong']} wrong, {row['server_errors']} × 5xx {row.pop('examples')[:2]}")
            anna = shop.login("anna-away")
            orders = [answer.json() for answer in await asyncio.gather(*(anna.place(("SKU-0007", 1)) for _ in range(40)))]
            await shop.become(orders, "paid")
            away = await run_postgres_away(shop, orders, anna)
            _say(f"PostgreSQL frozen: {away}")
    store("faults", {"redis": rows, "postgres": asdict(away)})


def main(words: list[str]) -> int:
    """Exit 0 when everything asked for was measured and written, 2 for a word that is none."""
    wanted = [*_ON_SERVERS, "faults", "pages"] if words == ["all"] else words
    if not wanted or set(wanted) - {*_ON_SERVERS, "faults", "pages"}:
        print(__doc__, file=sys.stderr)
        return 2
    if on_servers := [name for name in wanted if name in _ON_SERVERS]:
        _on_servers(on_servers)
    if "faults" in wanted:
        asyncio.run(_faults())
    store("lines", sum(code_lines(ROOT / "service" / "foundation" / name) for name in ("cache.py", "cache.lua")))
    if "pages" in wanted:
        write_pages()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
