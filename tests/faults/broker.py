"""Broker trouble, for both brokers: the memory broker has a control port; a real one is a process and an admin API.

`down`, `refuse` and `heal` work on both. Latency and other error codes come from the memory broker only: a real one
cannot be told to lie, and asking for it says what to use instead.
Tests: tests/faults/test_broker_and_sql.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from service.dev.memory_broker import control

PRODUCE: Final = 0  # the request's number in Kafka's protocol
_TOO_LARGE: Final = 10  # what a broker answers for a record it will never take
_TINY_BYTES, _USUAL_BYTES = 64, 1_048_588


class BrokerControl(Protocol):
    """What a fault driver may do to a broker."""

    async def down(self) -> None:
        """No request is answered until `heal`."""

    async def slow(self, delay_ms: int) -> None:
        """Every answer takes this much longer."""

    async def refuse(self, topic: str) -> None:
        """A record is refused as too large: the next one at all (memory), or every one of this topic (real)."""

    async def heal(self) -> None:
        """Back to normal."""


class MemoryBrokerControl:
    """By the control port."""

    def __init__(self, control_port: int) -> None:
        self._port = control_port
        self._undo: list[str] = []

    async def down(self) -> None:
        control(self._port, "down")
        self._undo.append("up")

    async def slow(self, delay_ms: int) -> None:
        control(self._port, f"rtt {delay_ms}")
        self._undo.append("rtt 0")

    async def refuse(self, topic: str) -> None:  # noqa: ARG002 - its errors are by request, not by topic
        await self.errors(PRODUCE, _TOO_LARGE, times=1)

    async def errors(self, api_key: int, code: int, *, times: int) -> None:
        """The next `times` requests of one kind (0: produce, 1: fetch, 8: offset commit) are answered with `code`."""
        control(self._port, f"error {api_key} {code} {times}")
        self._undo.append(f"clear {api_key}")

    async def heal(self) -> None:
        while self._undo:
            control(self._port, self._undo.pop())


class RealBrokerControl:
    """By signals and the admin API. `pid`: asked each time, since the supervisor may have started another."""

    def __init__(self, pid: Callable[[], int], bootstrap: str) -> None:
        self._pid, self._bootstrap = pid, bootstrap
        self._refused: list[str] = []

    async def down(self) -> None:
        os.kill(self._pid(), signal.SIGSTOP)

    async def slow(self, delay_ms: int) -> None:
        raise NotImplementedError(f"put a proxy in front of a real broker to delay it by {delay_ms} ms (tests/faults/proxy.py)")

    async def refuse(self, topic: str) -> None:
        await self._limit(topic, _TINY_BYTES)
        self._refused.append(topic)

    async def errors(self, api_key: int, code: int, *, times: int) -> None:
        """Not to be had: see the module's first lines."""
        raise NotImplementedError(f"a real broker cannot answer request {api_key} with error {code} {times} times: use --kafka memory")

    async def heal(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid(), signal.SIGCONT)
        while self._refused:
            await self._limit(self._refused.pop(), _USUAL_BYTES)

    async def _limit(self, topic: str, size_bytes: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size_bytes)})])
        finally:
            await admin.close()
