"""Overload: PostgreSQL made the bottleneck, more asked than it can do, with the limit on requests in flight and without.

Sales (the critical lane) are asked at 40 % of the capacity at most, the rest are lists (the lane that is shed first).
`python -m tests.proofs overload` draws the curve; tests/stories/test_overload_keeps_selling.py holds H1.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx
import orjson

from service.dev.issuer import mint
from tests.integration.processes import Member, running
from tests.proofs.arrivals import Arrivals, Tally
from tests.support.servers import Servers

LATENCY_MS = 10.0  # each direction: +20 ms a statement
POOL, IN_FLIGHT = 1, 6  # six in flight a connection, as 64 to 10 by default
CRITICAL_SHARE = 0.4
RATES = (0.5, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
_OPEN = 100_000
_WITHOUT = {"APP_HTTP_IN_FLIGHT": str(_OPEN), "APP_DB_QUEUE_TIMEOUT_MS": "60000"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One API process behind the slow door, and the load on it."""

    name: str
    load: Arrivals
    ops_url: str

    async def capacity(self, seconds: float) -> float:
        """Good answers a second when as many are under way as the limit allows lists."""
        return await self.load.saturate(("sale", "list"), IN_FLIGHT // 2, seconds)

    async def offer(self, times: float, capacity: float, seconds: float, *, warm_s: float) -> Tally:
        """`times` × `capacity` a second: sales up to 40 % of the capacity, the rest lists."""
        sales = min(times, 1.0) * CRITICAL_SHARE * capacity
        tally = await self.load.run({"sale": sales, "list": times * capacity - sales}, seconds, warm_s=warm_s)
        await self.rest()
        return tally

    async def queued(self) -> float:
        """Requests that had to wait for a connection so far: with many of them, connections are what is scarce."""
        return float((await self._page()).partition("\norders_db_pool_wait_seconds_count ")[2].partition("\n")[0])

    async def rest(self) -> None:
        """Wait until nothing of it is under way."""
        deadline = time.monotonic() + 60
        while "\norders_http_in_flight 0.0" not in await self._page():
            assert time.monotonic() < deadline, "requests are still under way after 60 s"
            await asyncio.sleep(0.1)

    async def _page(self) -> str:
        async with httpx.AsyncClient(timeout=30) as http:
            return (await http.get(f"{self.ops_url}/metrics")).text


@asynccontextmanager
async def arms(servers: Servers) -> AsyncIterator[dict[str, Arm]]:
    """Two API processes behind one slow door: `with` the limit and `without` it (and without a bound on the wait for a connection)."""
    base, environment = servers.base_port, servers.environment()
    door = base + 109
    url = environment["DATABASE_URL"].replace(f":{base + 100}/", f":{door}/")
    keys = f"http://127.0.0.1:{base + 103}/.well-known/jwks.json"
    slow = environment | {"DATABASE_URL": url, "APP_DB_POOL_SIZE": str(POOL), "APP_HTTP_IN_FLIGHT": str(IN_FLIGHT), "APP_PROFILE": "load"}
    slow |= {"APP_DB_ACQUIRE_TIMEOUT_MS": "30000"}  # a busy host may take long to start on
    members, found = [Member("issuer", keys, servers.home / "overload-issuer.log", environment)], {}
    for port, name, extra in ((base + 105, "with", {}), (base + 106, "without", _WITHOUT)):
        ops = f"http://127.0.0.1:{port + 2}"
        own = {"HTTP_PORT": str(port), "OPS_PORT": str(port + 2)}
        members.append(Member("serve", f"{ops}/health/ready", servers.home / f"overload-{name}.log", slow | extra | own))
        found[name] = Arm(name, Arrivals(port, _requests(servers, port), seed=port), ops)
    words = ("-m", "tests.proofs.door", str(door), str(base + 100), str(LATENCY_MS))
    process = await asyncio.create_subprocess_exec(sys.executable, *words)
    try:
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, running(*members))
            yield found
            for arm in found.values():
                await arm.load.close()
    finally:
        process.kill()
        await process.wait()


def _requests(servers: Servers, port: int) -> dict[str, Callable[[], bytes]]:
    issuer = f"http://127.0.0.1:{servers.base_port + 103}"
    token = mint(servers.home, sub="overload", role="customer", issuer=issuer)
    head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    body = orjson.dumps({"lines": [{"sku": "SKU-0001", "quantity": 1}], "currency": "EUR"})
    sale = f"POST /v1/orders HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: "
    page = f"GET /v1/products?limit=1 HTTP/1.1\r\n{head}\r\n".encode()
    return {"sale": lambda: f"{sale}{uuid4()}\r\n\r\n".encode() + body, "list": lambda: page}


@dataclass(frozen=True, slots=True)
class Point:
    """One place on the curve: offered and good as multiples of the capacity measured right before it."""

    arm: str
    times: float
    capacity: float
    offered: float
    goodput: float
    sales_kept: float
    slip_ms: float


async def draw_curve(servers: Servers, say: Callable[[str], None], *, seconds: float = 6.0, warm_s: float = 2.0) -> list[Point]:
    """The points of both arms, which take turns; what else runs on the host moves capacity and goodput alike."""
    points = []
    async with arms(servers) as found:
        for arm in found.values():
            await arm.capacity(2.0)  # statements prepared, keys loaded
        for times in RATES:
            for name, arm in found.items():
                capacity = await found["with"].capacity(2.0)
                tally = await arm.offer(times, capacity, seconds, warm_s=warm_s)
                points.append(_point(name, times, capacity, tally))
                say(f"{times:g} × {capacity:.0f} a second, {name} the limit: {points[-1].goodput:.2f} good, sales kept {points[-1].sales_kept:.1%}")
    return points


def _point(name: str, times: float, capacity: float, tally: Tally) -> Point:
    offered, goodput = (count / tally.seconds / capacity for count in (tally.asked(), tally.good()))
    kept = tally.good("sale") / max(1, tally.asked("sale"))
    return Point(name, times, round(capacity, 1), round(offered, 3), round(goodput, 3), round(kept, 4), round(tally.slip_s * 1000, 1))
