"""The victim: a whole stack on real processes, every dependency behind a fault proxy, a standby relay, and ways to reach it all.

The checker and the clients' calls do not go through the proxies; everything the service itself asks does.
`source`: another copy of the code (a planted bug) that the service's processes run.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from service.dev.children import StackError, spawn, stop
from service.dev.postgres import EmbeddedPostgres
from service.dev.roster import command
from service.dev.stack import running_stack
from service.dev.state import read_stack
from tests.faults.broker import MemoryBrokerControl, RealBrokerControl
from tests.faults.control import StackControl, state_of
from tests.faults.proxy import FaultProxy
from tests.support.servers import free_base_port

BrokerName = Literal["memory", "real"]
POLICIES: Final = ({"name": "burst", "quota": 20, "window_s": 1.0}, {"name": "sustained", "quota": 600, "window_s": 60.0})
STANDBY: Final = "relay-standby"
_PROXIED: Final = {"postgres": 106, "redis": 107, "kafka": 108}
_SETTINGS: Final = {
    "APP_WORKER_TIERS_S": "0.1,0.4,1,2",
    "APP_ORDERS_EXPIRE_SLACK_S": "0",
    "APP_LIMIT_ROLE_FACTORS": "operator=1,admin=1",  # one quota for everybody: the checker knows one
    "APP_HTTP_DRAIN_WAIT_S": "0.5",
    "APP_DB_POOL_SIZE": "5",  # half as many log-ins to wait for whenever the server or the wire comes back
    "APP_KAFKA_SESSION_TIMEOUT_MS": "6000",  # as low as a real broker allows, so that a stopped worker is a zombie soon
}
POOL: Final = int(_SETTINGS["APP_DB_POOL_SIZE"])
_REPLACED_S: Final = 30.0
_ATTEMPTS: Final = 3


@dataclass(slots=True)
class Rig:
    """A running victim."""

    home: Path
    broker_name: BrokerName
    stack: dict[str, Any]
    proxies: dict[str, FaultProxy]
    http: httpx.AsyncClient
    broker: MemoryBrokerControl | RealBrokerControl
    control: StackControl
    kafka_requests: Counter[int] = field(default_factory=Counter)  # by the protocol's number, as clients sent them
    standby: subprocess.Popen[bytes] | None = None
    refused_tokens: int = 0
    skew_s: int = 0  # clients' tokens are as if made this much earlier or later

    @property
    def urls(self) -> dict[str, str]:
        return dict(self.stack["urls"])

    def pids(self, role: str) -> dict[str, int]:
        """Name → pid of the processes of a role; the standby is a relay."""
        found = {p["name"]: int(p["pid"]) for p in read_stack(self.home)["processes"] if p["role"] == role}
        if role == "relay" and self.standby is not None:
            found[STANDBY] = self.standby.pid
        return found

    async def replaced(self, role: str, name: str, pid: int) -> bool:
        """Wait until another process stands under this name; False if none does in time."""
        deadline = time.monotonic() + _REPLACED_S
        while (now := self.pids(role).get(name, pid)) == pid or state_of(now) in {"", "Z"}:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def metric(self, role: str, line_start: str, *, only: str = "") -> list[float]:
        """The values of a metric's lines over the processes of a role (or the one of this name) that answer."""
        found: list[float] = []
        for process in read_stack(self.home)["processes"]:
            if process["role"] == role and only in {"", process["name"]}:
                with suppress(httpx.HTTPError):
                    page = (await self.http.get(f"{process['ops_url']}/metrics", timeout=1)).text
                    found += [float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(line_start)]
        return found

    async def is_ready(self) -> bool:
        """Does every process say so?"""
        for process in read_stack(self.home)["processes"]:
            if process["ops_url"] is not None:
                try:
                    if (await self.http.get(f"{process['ops_url']}/health/ready", timeout=2)).status_code != 200:
                        return False
                except httpx.HTTPError:
                    return False
        return True

    async def dial(self, **dials: object) -> None:
        """Turn the provider's dials, however long it takes (it may be stopped just now)."""
        deadline = time.monotonic() + _REPLACED_S
        while True:
            try:
                await self.http.post(f"{self.urls['psp']}/dials", json=dials, timeout=5)
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def keep_standby(self) -> None:
        """A second relay beside the stack's own, started again when it dies."""
        while True:
            if self.standby is None or self.standby.poll() is not None:
                # The same environment as the active one; its health page is not asked.
                env = _environment_of(self.control.pid("relay"))
                if env:
                    self.standby = spawn(command("relay"), log=self.home / "logs" / f"{STANDBY}.log", env=env | {"OPS_PORT": "0"})
            await asyncio.sleep(0.3)


@asynccontextmanager
async def running_rig(
    home: Path,
    *,
    kafka: BrokerName,
    seed: int,
    source: Path | None = None,
    api: int = 2,
    workers: int = 2,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """Proxies first, then the stack that talks through them."""
    requests: Counter[int] = Counter()
    base = free_base_port()
    async with AsyncExitStack() as stack:
        proxies = {}
        for number, (name, offset) in enumerate(_PROXIED.items()):
            tap = _count_into(requests) if name == "kafka" else (lambda _: None)
            proxies[name] = FaultProxy(base + offset, base + 100 + number, seed=seed, tap=tap)
            await proxies[name].start()
            stack.push_async_callback(proxies[name].stop)
        made = await _started(stack, lambda: _stack(home, base, kafka, source, settings or {}, api=api, workers=workers))
        control = StackControl(home)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=made["urls"]["api"], timeout=8, limits=httpx.Limits(max_connections=200, max_keepalive_connections=40))
        )
        broker = (
            MemoryBrokerControl(base + 105) if kafka == "memory" else RealBrokerControl(lambda: control.pid("kafka"), made["urls"]["kafka"])
        )  # fmt: skip
        rig = Rig(home, kafka, made, proxies, http, broker, control, requests)
        await rig.dial(magic_totals=False, decline_rate=0.05)
        keeper = asyncio.create_task(rig.keep_standby())
        try:
            yield rig
        finally:
            keeper.cancel()
            if rig.standby is not None:
                stop(rig.standby)
            await rig.http.aclose()


async def _started(stack: AsyncExitStack, make: Callable[[], AbstractContextManager[dict[str, Any]]]) -> dict[str, Any]:
    """A process that cannot reach its database in time at start-up gives up, by design: a busy machine deserves another attempt."""
    for attempt in range(_ATTEMPTS):
        try:
            return await asyncio.to_thread(stack.enter_context, make())
        except StackError as error:
            if attempt == _ATTEMPTS - 1:
                raise
            print(f"         again, for {error}", flush=True)
    raise AssertionError("unreachable")


@contextmanager
def _stack(
    home: Path, base: int, kafka: BrokerName, source: Path | None, settings: Mapping[str, str], *, api: int, workers: int
) -> Iterator[dict[str, Any]]:
    behind = EmbeddedPostgres(home, base + _PROXIED["postgres"])
    behind._initialise()  # its password is made with its data, and the address we give the service holds it
    env = (
        _SETTINGS
        | dict(settings)
        | {
            "DATABASE_URL": behind.url,
            "REDIS_URL": f"redis://127.0.0.1:{base + _PROXIED['redis']}/0",
            "KAFKA_BOOTSTRAP": f"127.0.0.1:{base + _PROXIED['kafka']}",
        }
    )
    if source is not None:
        # Not the folder we stand in, but that copy.
        env |= {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
    try:
        with running_stack(home, base, api=api, workers=workers, kafka=kafka, env=env, timeout_s=240) as made:
            yield made
    finally:
        EmbeddedPostgres(home, 0).wipe()  # as root its data is elsewhere


def _count_into(requests: Counter[int]) -> Any:
    def tap(data: bytes) -> None:
        if len(data) >= 6:  # size, then the request's number; clients send one request a write
            requests[int.from_bytes(data[4:6], "big")] += 1

    return tap


def _environment_of(pid: int) -> dict[str, str]:
    """Empty for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.decode().split("=", 1) for line in lines if b"=" in line)


def memory_mib(pid: int) -> float:
    """Resident memory; 0 for a process that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
