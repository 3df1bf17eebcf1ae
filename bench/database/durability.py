"""synchronous_commit: what waiting for the disk costs, and what not waiting loses when the server is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

import asyncpg

from bench.database.findings import Bars, Chapter, Finding, Shown, Table, ratio
from bench.database.lab import Lab

_SCRIPT: Final = "INSERT INTO promise (said) VALUES (now());\n"
_COUNT, _KILLS, _KILLED_AFTER = 160, 3, 100
_FLUSHES: Final = "SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_io WHERE object = 'wal'"


async def run(lab: Lab) -> Finding:
    """Flushes a commit and time, then kills."""
    found, flushes = Finding(), {}
    async with lab.copy("durable") as name:
        async with lab.connect(name) as connection:
            await connection.execute("CREATE TABLE promise (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, said timestamptz)")

            async def commit(setting: str, clients: int) -> float:
                options = ("-M", "prepared", "-t", str(_COUNT // clients))
                before = await connection.fetchval(_FLUSHES)
                per_s = await asyncio.to_thread(lab.pgbench, name, _SCRIPT, clients=clients, options=options, synchronous_commit=setting)
                flushes[setting, clients] = (await connection.fetchval(_FLUSHES) - before) / _COUNT
                return 1 / per_s

            arms = {f"{setting}, {clients}": (setting, clients) for clients in (1, 16) for setting in ("on", "off")}
            taken = await lab.interleave({key: (lambda arm=arm: commit(*arm)) for key, arm in arms.items()}, rounds=5)
        lost = {setting: [await _kill(lab, name, setting) for _ in range(_KILLS)] for setting in ("on", "off")}
    found.witness = [
        Table(
            ("synchronous_commit", "flushes a commit, 1 client", "flushes a commit, 16 clients", f"acknowledged and lost, {_KILLS} kills"),
            [(s, round(flushes[s, 1], 2), round(flushes[s, 16], 2), ", ".join(map(str, lost[s]))) for s in ("on", "off")],
        )
    ]
    found.ratios = [ratio(f"time of a commit, on ÷ off, {clients} at once", taken[f"on, {clients}"], taken[f"off, {clients}"]) for clients in (1, 16)]
    found.bars = [Bars("Time of a commit with synchronous_commit = on, off = 1", "×", [(r.name.split(", ")[2], r.median) for r in found.ratios])]
    found.shown = [Shown("one row, one commit", _SCRIPT)]
    return found


async def _kill(lab: Lab, name: str, setting: str) -> int:
    """Commit until some are acknowledged, stop the server at once, start it again; answers how many acknowledged rows are gone."""
    connection = await asyncpg.connect(lab.url(name), ssl=False, server_settings={"synchronous_commit": setting})
    said: list[int] = []
    server = lab.postgres.running()
    try:
        while True:
            said.append(await connection.fetchval("INSERT INTO promise (said) VALUES (now()) RETURNING id"))
            if len(said) == _KILLED_AFTER:
                os.kill(server.pid, signal.SIGQUIT)  # no flush, no checkpoint: as if the power had gone, but for the disk's own cache
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection.terminate()
    await asyncio.to_thread(server.wait, 30)
    await asyncio.to_thread(lab.postgres.start)
    async with lab.connect(name) as again:
        present = await again.fetchval("SELECT count(*) FROM promise WHERE id = ANY ($1::bigint[])", said)
    return len(said) - int(present)


CHAPTER: Final = Chapter(
    name="durability",
    title="synchronous_commit",
    question="What does it cost to wait for the disk, and what does a crash take from those who do not?",
    reading=(
        "With `on` a commit is answered when its log is on the disk; one flush serves all that wait for it, so sixteen clients share. With `off` "
        "nobody waits and a background process flushes every 200 ms: the data stays consistent, but what was acknowledged in the last moments is gone. "
        "Invariant I1 says a 201 is in the database; so it is `on`. The seed runs with `off`: what a crash takes from it is seeded again."
    ),
    other=(
        "`off` for one transaction (`SET LOCAL`), where the next run repeats it or nobody misses it: page views, the history that events rebuild, bulk loads. "
        "`remote_apply` with a standby, where a read there must see the write."
    ),
    run=run,
)
