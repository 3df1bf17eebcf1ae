"""One record through one group: decode, restore the trace, call the handler, and act on `retry.decide`.

Returns only when the record is finished for this topic: applied, ignored, moved to a tier, or parked.
Every error is classified here; none escapes, none is swallowed without a count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiokafka.structs import ConsumerRecord
from opentelemetry.trace import SpanKind

from service.foundation import failpoints, metrics, tracing
from service.foundation.cache import Cache
from service.foundation.db import Database
from service.foundation.log import get_logger
from service.payments import Provider
from service.settings import Settings
from workers.dead_letters import park
from workers.envelope import Envelope, attempt_of, decode, origin_of
from workers.retry import DeadLetter, Decision, Pause, Tier, TryAgain, classify, decide
from workers.sink import Sink
from workers.tiers import Mover, dead_letter_topic, retry_topic, tiers_of

log = get_logger(__name__)

_PAUSE_CAPS_S: Final = {"cache": 1.0}
_DEFAULT_PAUSE_CAP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may use. `consumer` is the group's name: the inbox key."""

    consumer: str
    db: Database
    settings: Settings
    provider: Provider
    sink: Sink
    cache: Cache


# Answers what happened: applied, duplicate, superseded.
Handler = Callable[[Envelope, Context], Awaitable[str]]


class Gate:
    """Open: records of the group may run. A pause closes it for all of the group's partitions."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._open = asyncio.Event()
        self._open.set()
        self._pauses = 0

    @property
    def closed(self) -> bool:
        return not self._open.is_set()

    @property
    def pauses(self) -> int:
        """Pauses in a row."""
        return self._pauses

    async def passed(self) -> None:
        """Wait until the group may go on."""
        await self._open.wait()

    async def pause(self, delay_s: float, error: BaseException) -> None:
        """Close the gate for `delay_s`; records that fail meanwhile wait with it."""
        if self.closed:
            await self._open.wait()
            return
        self._pauses += 1
        self._open.clear()
        metrics.consumer_paused.labels(self._group).set(1)
        log.warning("group.paused", group=self._group, delay_s=round(delay_s, 2), error=type(error).__name__)
        try:
            await asyncio.sleep(delay_s)
        finally:
            metrics.consumer_paused.labels(self._group).set(0)
            self._open.set()

    def worked(self) -> None:
        """A record went through: the next pause starts short again."""
        self._pauses = 0


class Handling:
    """What one group does with a record."""

    def __init__(self, group: str, handlers: Mapping[str, Handler], context: Context, mover: Mover) -> None:
        self.group = group
        self._handlers = handlers
        self._context = context
        self._mover = mover
        self._tiers_s = tiers_of(group, context.settings)
        self._timeout_s = context.settings.worker.handler_timeout_s
        self.gate = Gate(group)
        self._duration = metrics.handler_duration.labels(group)
        self._age = metrics.event_age.labels(group)

    async def finish(self, record: ConsumerRecord) -> str:
        """Bring the record to an end; answers its outcome. Runs as long as its infrastructure needs."""
        tries = 0
        while True:
            await self.gate.passed()
            try:
                outcome = await self._call(record)
            except Exception as error:  # noqa: BLE001 - the group's process loop: classified and counted below
                tries += 0 if classify(error) == "infra" else 1
                outcome = await self._react(record, error, tries)
            else:
                self.gate.worked()
            if outcome:
                metrics.records.labels(self.group, outcome).inc()
                return outcome

    async def _call(self, record: ConsumerRecord) -> str:
        envelope = decode(record)
        handler = self._handlers.get(envelope.event_type)
        if handler is None:
            return "ignored"
        links = tracing.link_to(envelope.first_traceparent)
        parent = tracing.remote(envelope.traceparent)
        attributes = {
            "messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": record.topic,
            "messaging.consumer.group.name": self.group, "messaging.message.id": str(envelope.event_id),
        }  # fmt: skip
        started = time.perf_counter()
        with tracing.span(f"{self.group} {envelope.event_type}", SpanKind.CONSUMER, parent=parent, links=links, attributes=attributes) as span:
            async with asyncio.timeout(self._timeout_s):
                outcome = await handler(envelope, self._context)
            span.set_attribute("outcome", outcome)
            log.info("record.handled", group=self.group, type=envelope.event_type, aggregate=envelope.aggregate_id, outcome=outcome)
        self._duration.observe(time.perf_counter() - started)
        self._age.observe(max(0.0, (datetime.now(UTC) - envelope.at).total_seconds()))
        return outcome

    async def _react(self, record: ConsumerRecord, error: BaseException, tries: int) -> str:
        """Act on the decision; an outcome if the record is finished here, "" to try it again."""
        decision = self._decide(record, error, tries)
        try:
            return await self._carry_out(record, error, decision)
        except Exception as failure:  # noqa: BLE001 - moving or parking failed: the record stays, and is tried again
            metrics.caught.labels("reroute").inc()
            await self.gate.pause(self._pause(failure).delay_s, failure)
            return ""

    def _decide(self, record: ConsumerRecord, error: BaseException, tries: int) -> Decision:
        cap = _PAUSE_CAPS_S.get(self.group, _DEFAULT_PAUSE_CAP_S)
        return decide(classify(error), tries=tries, tiers_done=attempt_of(record), tiers_s=self._tiers_s, pauses=self.gate.pauses, pause_cap_s=cap)

    def _pause(self, error: BaseException) -> Pause:
        cap = _PAUSE_CAPS_S.get(self.group, _DEFAULT_PAUSE_CAP_S)
        decision = decide("infra", tries=1, tiers_done=0, tiers_s=(), pauses=self.gate.pauses, pause_cap_s=cap)
        assert isinstance(decision, Pause), error
        return decision

    async def _carry_out(self, record: ConsumerRecord, error: BaseException, decision: Decision) -> str:
        topic = origin_of(record).topic
        match decision:
            case TryAgain(delay_s):
                await asyncio.sleep(delay_s)
                return ""
            case Pause(delay_s):
                await self.gate.pause(delay_s, error)
                return ""
            case Tier(number, delay_s):
                due_ms = int((time.time() + delay_s) * 1000)
                log.warning("record.retried", group=self.group, tier=number, error=type(error).__name__)
                await self._mover.move(record, retry_topic(topic, self.group, number), reason="record", error=error, not_before_ms=due_ms)
                return "retried"
            case DeadLetter(reason):
                await self._mover.move(record, dead_letter_topic(topic, self.group), reason=reason, error=error)
                async with self._context.db.transaction() as connection:
                    await park(connection, self.group, record, error)
                await failpoints.hit("between-dead-letter-and-offset-commit")
                return "dead"
