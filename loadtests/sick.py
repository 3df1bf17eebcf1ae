"""Ten ways in which a service is sick under load, each made by really breaking it, and what its picture looks like.

Those with a `named` are planted defects that the verdict must name; of the others the run must show the symptom.
`plumbline load sick` says of each whether it did (exit 1 if not), and draws the pictures of docs/load-testing.md.
Test: `tests/load/test_planted_defects_are_named.py`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from loadtests import verdict
from loadtests.cut import Cut
from loadtests.plan import Plan
from loadtests.readback import drain
from loadtests.report import page, summary
from loadtests.report.plots import Plot, draw, side_by_side
from loadtests.run import Run, judge, measure
from loadtests.stall import stall_of
from loadtests.target import ROOT, Target, Wanted, own_stack
from service.dev.roster import Profile

_PLANT: Final = Path(__file__).parent / "plant"
_SEEDED: Final = 100_000
_INDEXES: Final = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'orders' AND indexdef LIKE '%(customer_id, id DESC)%'"

# A session that goes idle reports what it read up to ten seconds later (PGSTAT_IDLE_INTERVAL): the next experiment would be blamed for it.
_COUNTED_AFTER_S: Final = 11.0

Breaking = Callable[[Target], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Sickness:
    """`named`: a word of the resource the verdict must name; `shows`: the symptom, where nothing is full. `plots`: titles of the picture."""

    name: str
    title: str
    plan: Plan
    plots: tuple[str, str]
    breaking: Breaking = lambda _: nullcontext()
    named: str = ""
    shows: Callable[[Run], bool] = lambda _: True
    stack: str = "planted"

    def found(self, run: Run) -> bool:
        """Was it seen, and by its name?"""
        return self.named in str(run.saturated or "") and self.shows(run)


def stack_settings(kind: str, folder: Path) -> tuple[Profile, dict[str, str]]:
    """Profile and environment of a stack that can be, or is, sick in this way."""
    if kind == "pool of 1":
        # Creates that commit together hardly need a second connection: one by one they do.
        return "load", {"APP_DB_POOL_SIZE": "1", "APP_ORDERS_GROUP_SIZE": "1"}
    if kind == "limited":
        return "default", {}
    return "load", {"PYTHONPATH": os.pathsep.join([str(_PLANT), str(ROOT)]), "LOADTESTS_PLANT": str(folder / "plant")}


def _plant(text: str) -> Breaking:
    @contextmanager
    def breaking(target: Target) -> Iterator[None]:
        file = _home(target) / "plant"
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()

    return breaking


def _sql(target: Target, *statements: str) -> list[Any]:
    """Each statement by itself; the rows of the last."""

    async def ask() -> list[Any]:
        connection, rows = await asyncpg.connect(target.stack["urls"]["database"]), []
        try:
            for statement in statements:
                rows = await connection.fetch(statement)
        finally:
            await connection.close()
        return rows

    return asyncio.run(ask())


@contextmanager
def _slow_commits(target: Target) -> Iterator[None]:
    """Each commit takes 20 ms more, as on a disk behind a network: ten connections do not mind, one does."""
    _sql(target, "ALTER SYSTEM SET commit_siblings = 0", "ALTER SYSTEM SET commit_delay = 20000", "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        _sql(target, "ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings", "SELECT pg_reload_conf()")


@contextmanager
def _without_index(target: Target) -> Iterator[None]:
    """Orders of a year, and the index of their customers gone."""
    url = target.stack["urls"]["database"]
    environment = {**os.environ, "DATABASE_URL": url, "PLUMBLINE_HOME": str(_home(target))}
    print(f"  seeding {_SEEDED:,} orders …", flush=True)
    subprocess.run(
        [sys.executable, "-m", "service", "seed", "--orders", str(_SEEDED)], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )

    indexes = _sql(target, _INDEXES)
    assert indexes, "the index of a customer's orders has another form: look at service/models.py"
    _sql(target, *(f'DROP INDEX "{row["indexname"]}"' for row in indexes))
    try:
        yield
    finally:
        _sql(target, *(row["indexdef"] for row in indexes), "ANALYZE orders")  # or the next one is sick of this
        print(f"  {_COUNTED_AFTER_S:g} s until PostgreSQL's sessions have told all they read …", flush=True)
        time.sleep(_COUNTED_AFTER_S)


@contextmanager
def _locked_rows(target: Target) -> Iterator[None]:
    """Somebody holds the catalogue's rows for 3 s at a time in a transaction that does nothing."""
    over = threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(target.stack["urls"]["database"])
        try:
            while not over.is_set():
                async with connection.transaction():
                    await connection.execute("SELECT FROM product WHERE sku < 'SKU-0500' FOR UPDATE")
                    await asyncio.sleep(3)
                await asyncio.sleep(0.2)
        finally:
            await connection.close()

    holder = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
    holder.start()
    try:
        yield
    finally:
        over.set()
        holder.join(timeout=10)


@contextmanager
def _slow_provider(target: Target) -> Iterator[None]:
    url = target.stack["urls"]["psp"]
    httpx.post(f"{url}/dials", json={"latency_ms": 700}).raise_for_status()
    try:
        yield
    finally:
        httpx.post(f"{url}/dials", json={"latency_ms": 0}).raise_for_status()


def _home(target: Target) -> Path:
    assert target.home is not None
    return target.home


def _backlog(run: Run) -> float:
    return max(sample.get("lag") + sample.get("outbox_rows") for sample in run.samples)


_WAITS, _FULL, _LATENCY, _RATE = "Waits", "Full: pool and slots", "Latency by the second", "Throughput"
SICK: Final = {
    sickness.name: sickness
    for sickness in (
        Sickness("pool-of-1", "A pool that is too small", Plan("pool-of-1", "stress", rate=120, seconds=12, mix="buy", pool=600), (_FULL, _WAITS),
                 _slow_commits, named="database pool wait", stack="pool of 1"),
        Sickness("missing-index", "A missing index", Plan("missing-index", "stress", rate=80, seconds=12, mix="list", pool=300), ("CPU", _LATENCY),
                 _without_index, named="orders without an index"),
        Sickness("blocked-loop", "A handler that blocks the event loop", Plan("blocked-loop", "stress", rate=80, seconds=12, mix="buy", pool=300),
                 (_WAITS, "CPU"), _plant("block 0.05"), named="event loop"),
        Sickness("slow-handler", "A handler that waits for something slow", Plan("slow-handler", "stress", rate=200, seconds=12, mix="buy", pool=600),
                 (_FULL, "Shed"), _plant("wait 1.2"), named="admission slots"),
        Sickness("stalls", "A server that stops and goes", Plan("stalls", rate=20, seconds=16, mix="look"),
                 (_LATENCY, "Latency, cumulative"), shows=lambda run: run.latency(0.99) >= 1_000),
        Sickness("backlog", "Fast answers over a growing backlog", Plan("backlog", rate=30, seconds=14, mix="buy"), (_LATENCY, "Behind the API"),
                 _slow_provider, shows=lambda run: _backlog(run) >= 200),
        Sickness("broker-away", "A broker that was away", Plan("broker-away", "outage", rate=15, seconds=16, mix="buy", cut="kafka"),
                 (_RATE, "Behind the API"), shows=lambda run: run.extra["cuts"] == 1 and _backlog(run) >= 50),
        Sickness("locks", "A transaction that holds what all need", Plan("locks", rate=20, seconds=12, mix="buy", pool=600),
                 (_LATENCY, "Sessions in PostgreSQL"), _locked_rows, named="PostgreSQL locks"),
        Sickness("limited", "A rate limit that was meant for somebody else", Plan("limited", "ramp", rate=60, seconds=12, mix="look", customers=1),
                 (_RATE, _LATENCY), shows=lambda run: any(route.outcomes["limited"] for route in run.recorder.routes.values()), stack="limited"),
        Sickness("starved-generator", "A generator that is the bottleneck", Plan("starved-generator", rate=300, seconds=10, mix="buy", pool=1),
                 (_RATE, "CPU"), shows=lambda run: run.code == verdict.INVALID and run.recorder.dispatch.dropped > 0),
    )
}  # fmt: skip


def run_one(sickness: Sickness, target: Target, folder: Path) -> Run:
    """Break it, run, mend it."""
    with sickness.breaking(target):
        run = measure(sickness.plan, target, folder, stall=_stall(sickness, target), ask=False)
    judge(run, verdict.load_objectives())
    return run


def _stall(sickness: Sickness, target: Target) -> Cut | None:
    return stall_of(target.pids("api")) if sickness.name == "stalls" else None


def show_all(wanted: Wanted, folder: Path, *, only: tuple[str, ...] = (), pictures: Path | None = None) -> int:
    """Run the chosen ones; 1 when one that is to be named was not."""
    chosen = [sickness for name, sickness in SICK.items() if not only or name in only]
    wrong = []
    for kind in dict.fromkeys(sickness.stack for sickness in chosen):
        with ExitStack() as stack:
            profile, environment = stack_settings(kind, _planted_home())
            target = stack.enter_context(own_stack(wanted, profile=profile, env=environment))
            for sickness in (s for s in chosen if s.stack == kind):
                run = run_one(sickness, target, folder / sickness.name)
                said = summary.summarise(run, profile=target.profile) | {"headline": sickness.title}
                summary.write(said, folder / sickness.name)
                page.write(said, folder / sickness.name)
                if pictures is not None:
                    draw_picture(sickness, said, pictures)
                right = sickness.found(run)
                mark = ("named" if sickness.named else "shown") if right else "NOT SEEN"
                print(f"{mark}: {sickness.title}: {said['saturated'] or 'nothing was full'}", flush=True)
                if not right:
                    wrong.append(sickness.name)
                asyncio.run(await_quiet(target))
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} as they should be" + (f"; not: {', '.join(wrong)}" if wrong else ""))
    return verdict.MISSED if wrong else verdict.OK


async def await_quiet(target: Target) -> None:
    """What one experiment left to do is no part of the next one's picture."""
    connection = await asyncpg.connect(target.stack["urls"]["database"])
    try:
        await drain(connection, time.monotonic(), 120, print)
    finally:
        await connection.close()


def draw_picture(sickness: Sickness, said: Mapping[str, Any], folder: Path) -> Path:
    """The two plots that show it, side by side."""
    plots: dict[str, Plot] = {plot.title: plot for plot in page.run_plots(said)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sickness.name}.svg"
    path.write_text(side_by_side(*(draw(plots[title]) for title in sickness.plots)) + "\n", encoding="utf-8")
    return path


def _planted_home() -> Path:
    return Path(os.environ.get("PLUMBLINE_HOME", ".plumbline")).absolute() / "load"
