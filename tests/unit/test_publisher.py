"""One bad row or partition holds back its own aggregates only; what was acknowledged counts, whatever else failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, NotLeaderForPartitionError

from service.settings import KafkaSettings
from workers.publisher import Publisher, Sent

Judge = Callable[[list[dict[str, Any]]], dict[int, BaseException | None] | None]


def row(seq: int, aggregate: str, **more: Any) -> dict[str, Any]:
    return {
        "seq": seq, "event_id": uuid4(), "type": "order.paid", "aggregate_id": aggregate, "version": seq, "created_at": datetime.now(UTC),
        "topic": "orders.events.v1", "key": aggregate, "payload": str(seq).encode(), "headers": {}, **more,
    }  # fmt: skip


class Producer:
    """`judge` says for a row's payload: an error, None (acknowledged), or `...` (never answered). Batches as Kafka does."""

    def __init__(self, judge: Callable[[int, int], Any], sent: list[int]) -> None:
        self._judge, self._sent = judge, sent
        self._batch: list[tuple[int, asyncio.Future[None]]] = []
        self.client = self

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def close(self) -> None: ...

    async def send(self, _topic: str, *, value: bytes, **_: Any) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self._sent.append(int(value))
        self._batch.append((int(value), future))
        if len(self._batch) == 1:
            asyncio.get_running_loop().call_later(0.01, self._answer)
        return future

    def _answer(self) -> None:
        batch, self._batch = self._batch, []
        for seq, future in batch:
            verdict = self._judge(seq, len(batch))
            if verdict is None:
                future.set_result(None)
            elif verdict is not ...:
                future.set_exception(verdict)


async def publish(rows: list[dict[str, Any]], judge: Callable[[int, int], Any]) -> tuple[Sent, list[int], Publisher, int]:
    made, sent = [], []

    def make(*_: Any, **__: Any) -> Any:
        made.append(Producer(judge, sent))
        return made[-1]

    publisher = Publisher(KafkaSettings(send_deadline_ms=300), make=make)
    return await publisher.send(rows), sent, publisher, len(made)  # type: ignore[arg-type]


def seqs(rows: list[Any]) -> list[int]:
    return [found["seq"] for found in rows]


ROWS = [row(1, "a"), row(2, "b"), row(3, "a"), row(4, "c"), row(5, "b")]


async def test_all_is_well() -> None:
    sent, order, publisher, producers = await publish(ROWS, lambda seq, size: None)
    assert (seqs(sent.acknowledged), sent.refused, sent.failed, order, producers) == ([1, 2, 3, 4, 5], [], [], [1, 2, 3, 4, 5], 1)
    assert publisher.postponed() == set()


async def test_a_batch_refused_for_size_costs_the_culprit_only() -> None:
    # Kafka refuses the whole batch; alone, only row 2 is too large.
    refuse = lambda seq, size: MessageSizeTooLargeError() if size > 1 or seq == 2 else None  # noqa: E731
    sent, order, _, producers = await publish(ROWS, refuse)
    assert seqs(sent.refused) == [2]
    assert seqs(sent.acknowledged) == [1, 3, 4], "row 5 follows the refused one: it waits"
    assert order == [1, 2, 3, 4, 5, 1, 2, 3, 4], "in order, and nothing of b after row 2"
    assert producers >= 2, "no producer is used after a refusal"


@pytest.mark.parametrize("verdict", [NotLeaderForPartitionError(), ...])
async def test_a_partition_that_fails_or_is_silent_holds_back_its_own(verdict: Any) -> None:
    sent, _, publisher, _ = await publish(ROWS, lambda seq, size: verdict if seq == 2 else None)
    assert (seqs(sent.acknowledged), seqs(sent.failed)) == ([1, 3, 4], [2, 5])
    assert publisher.postponed() == {"b"}, "the next batch leaves it alone"


async def test_nothing_acknowledged_is_an_outage() -> None:
    with pytest.raises(KafkaError):
        await publish(ROWS, lambda seq, size: ...)
