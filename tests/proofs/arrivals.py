"""An open load: requests leave at their planned times whether or not earlier ones were answered.

A call counts as good if a 2xx is complete within `PATIENCE_S` of its planned time; then its client gives up.
Plain asyncio sockets: the generator must cost less than what it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PATIENCE_S = 1.0


@dataclass(slots=True)
class Tally:
    """What became of the calls planned after the warm-up: kind → statuses (0: given up or broken)."""

    seconds: float
    seen: dict[str, Counter[int]] = field(default_factory=dict)
    slips_s: list[float] = field(default_factory=list)

    def good(self, *kinds: str) -> int:
        return sum(counts[200] + counts[201] for kind, counts in self.seen.items() if not kinds or kind in kinds)

    def asked(self, *kinds: str) -> int:
        return sum(sum(counts.values()) for kind, counts in self.seen.items() if not kinds or kind in kinds)

    @property
    def slip_s(self) -> float:
        """99th percentile of how late the generator itself was."""
        return sorted(self.slips_s)[int(0.99 * (len(self.slips_s) - 1))] if self.slips_s else 0.0


class Arrivals:
    """Requests of several kinds to one port, each kind at its own rate."""

    def __init__(self, port: int, requests: Mapping[str, Callable[[], bytes]], *, seed: int = 0) -> None:
        self._port, self._requests, self._luck = port, requests, random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, rates: Mapping[str, float], seconds: float, *, warm_s: float = 0.0) -> Tally:
        """Poisson arrivals at `rates` a second; what is planned in the first `warm_s` is sent and not counted."""
        tally, begin, calls = Tally(seconds - warm_s, {kind: Counter() for kind in rates}), time.monotonic(), set[asyncio.Task[None]]()
        for at_s, kind in heapq.merge(*(self._plan(kind, rate, seconds) for kind, rate in rates.items())):
            planned = begin + at_s
            if (left_s := planned - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            counted = tally if at_s >= warm_s else None
            call = asyncio.create_task(self._call(kind, planned, counted))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
        return tally

    async def saturate(self, kinds: tuple[str, ...], clients: int, seconds: float) -> float:
        """Good answers a second when `clients` always have one request under way."""
        tally, turns, end = Tally(seconds, {kind: Counter() for kind in kinds}), itertools.cycle(kinds), time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                await self._call(next(turns), time.monotonic(), tally)

        await asyncio.gather(*(client() for _ in range(clients)))
        return tally.good() / seconds

    async def close(self) -> None:
        """Give the connections back."""
        for _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()

    def _plan(self, kind: str, rate: float, seconds: float) -> list[tuple[float, str]]:
        times, at_s = [], 0.0
        while rate > 0 and (at_s := at_s + self._luck.expovariate(rate)) < seconds:
            times.append((at_s, kind))
        return times

    async def _call(self, kind: str, planned: float, tally: Tally | None) -> None:
        slip_s, status = time.monotonic() - planned, 0
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(planned + PATIENCE_S - time.monotonic()):
                status = await self._exchange(self._requests[kind]())
        if tally is not None:
            tally.seen[kind][status] += 1
            tally.slips_s.append(slip_s)

    async def _exchange(self, request: bytes) -> int:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        whole = False
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            if b"\r\ncontent-length: " in lower:
                await reader.readexactly(int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))
            whole = b"\r\nconnection: close" not in lower
            return int(head[9:12])
        finally:
            if whole:
                self._idle.append((reader, writer))
            else:
                writer.transport.abort()
