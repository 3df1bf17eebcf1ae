"""One record through one group: decode, restore the trace, call the handler, and act on `retry.decide`.

Returns only when the record is finished for this topic: applied, ignored, moved to a tier, or parked.
Every error is classified here; none escapes, none is swallowed without a count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.structs import ConsumerRecord
from opentelemetry.trace import SpanKind

from service.foundation import failpoints, metrics, tracing
from service.foundation.cache import Cache
from service.foundation.clock import Clock, SystemClock
from service.foundation.db import Database
from service.foundation.grouped import Jobs
from service.foundation.log import get_logger, line
from service.payments import Provider
from service.settings import Settings
from workers.dead_letters import park
from workers.envelope import Envelope, attempt_of, decode, header_text, not_before_ms, stream_of
from workers.gate import DeadLetterBreaker, Gate
from workers.retry import DeadLetter, Decision, Pause, Tier, TryAgain, classify, decide
from workers.sink import Sink
from workers.tiers import dead_letter_topic, retry_topic, tiers_of

log = get_logger(__name__)

_COMPONENT: Final = {"component": __name__}
OUTCOMES: Final = ("applied", "duplicate", "superseded", "ignored", "retried", "dead")
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
    jobs: Jobs


# Answers what happened: applied, duplicate, superseded.
Handler = Callable[[Envelope, Context], Awaitable[str]]


class Moves(Protocol):
    """Where records are moved to: `workers.tiers.Mover`."""

    async def move(self, record: ConsumerRecord, topic: str, *, reason: str, error: BaseException, not_before_ms: int = 0) -> None: ...


class Handling:
    """What one group does with a record. The breaker is shared by all of the group's consumers in a process."""

    def __init__(
        self,
        group: str,
        handlers: Mapping[str, Handler],
        context: Context,
        mover: Moves,
        *,
        breaker: DeadLetterBreaker | None = None,
        clock: Clock | None = None,
        parking: Callable[..., Awaitable[Any]] = park,
    ) -> None:
        self.group = group
        self._handlers = handlers
        self._context = context
        self._mover = mover
        self._park = parking
        self._clock = clock or SystemClock()
        self._tiers_s = tiers_of(group, context.settings)
        self._timeout_s = context.settings.worker.handler_timeout_s
        self.gate = Gate(group)
        self.breaker = breaker or DeadLetterBreaker(group, clock=self._clock)
        self._records = {outcome: metrics.records.labels(group, outcome) for outcome in OUTCOMES}
        metrics.dead_letters.labels(group)
        self._duration = metrics.handler_duration.labels(group)
        self._age = metrics.event_age.labels(group)
        self._lateness = metrics.tier_lateness.labels(group)

    @property
    def paused(self) -> bool:
        """True while the group begins no record: its infrastructure is away, or it gave up on too many."""
        return self.gate.closed or self.breaker.state != "closed"

    def ignores(self, record: ConsumerRecord) -> bool:
        """True for a type the group does not handle (counted): the rest of the record is then nothing to it, sound or not."""
        event_type = header_text(record, "ce_type")
        if event_type is None or not event_type.isascii() or event_type in self._handlers:
            return False
        self._records["ignored"].inc()
        return True

    async def finish(self, record: ConsumerRecord) -> str:
        """Bring the record to an end; answers its outcome. Runs as long as its infrastructure needs."""
        tracing.stand_at(tracing.remote(header_text(record, "traceparent")))
        trial, outcome = await self.breaker.passed(), ""
        try:
            outcome = await self._until_ended(record)
        finally:
            self.breaker.ended(outcome, trial=trial)
        self._records[outcome].inc()
        return outcome

    async def _until_ended(self, record: ConsumerRecord) -> str:
        tries, again = 0, False
        while True:
            await self.gate.passed()
            try:
                outcome = await self._call(record, again=again)
            except Exception as error:  # noqa: BLE001 - the group's process loop: classified and counted below
                tries, again = tries + (0 if classify(error) == "infra" else 1), True
                if outcome := await self._react(record, error, tries):
                    return outcome
            else:
                self.gate.worked()
                return outcome

    async def _call(self, record: ConsumerRecord, *, again: bool) -> str:
        """One attempt. The first one that fails is what later ones link to, and what moves or parks the record belongs to."""
        if not again and (due_ms := not_before_ms(record)):
            self._came_due(record, due_ms)
        envelope = decode(record)
        handler = self._handlers[envelope.event_type]
        links = tracing.link_to(tracing.remote(envelope.first_traceparent) or (tracing.current_ids() if again else None))
        parent = tracing.remote(envelope.traceparent)
        attributes = {
            "messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": record.topic,
            "messaging.consumer.group.name": self.group, "messaging.message.id": str(envelope.event_id),
        }  # fmt: skip
        started = time.perf_counter()
        name = f"{self.group} {envelope.event_type}"
        with tracing.span(name, SpanKind.CONSUMER, parent=parent, links=links, attributes=attributes, linger=not again) as span:
            async with asyncio.timeout(self._timeout_s):
                outcome = await handler(envelope, self._context)
            if span is not None:
                span.attributes = {**attributes, "outcome": outcome}
            said = {"group": self.group, "type": envelope.event_type, "aggregate": envelope.aggregate_id, "outcome": outcome}
            line("record.handled", said | _COMPONENT)
        self._duration.observe(time.perf_counter() - started)
        self._age.observe(max(0.0, (self._clock.now() - envelope.at).total_seconds()))
        return outcome

    def _came_due(self, record: ConsumerRecord, due_ms: int) -> None:
        """What shows that no retry begins early: the line's own moment is never before `due_ms` (W3)."""
        late_s = self._clock.now().timestamp() - due_ms / 1000
        self._lateness.observe(late_s)
        log.info("record.due", group=self.group, tier=attempt_of(record), due_ms=due_ms, late_s=round(late_s, 3), aggregate=_key_text(record))

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
        match decision:
            case TryAgain(delay_s):
                await asyncio.sleep(delay_s)
                return ""
            case Pause(delay_s):
                await self.gate.pause(delay_s, error)
                return ""
            case Tier(number, delay_s):
                return await self._retry_later(record, error, number, delay_s)
            case DeadLetter(reason):
                return await self._give_up(record, error, reason)

    async def _retry_later(self, record: ConsumerRecord, error: BaseException, number: int, delay_s: float) -> str:
        due_ms = int((self._clock.now().timestamp() + delay_s) * 1000)
        error_name, aggregate = type(error).__name__, _key_text(record)
        log.warning("record.retried", group=self.group, tier=number, due_in_s=round(delay_s, 3), error=error_name, aggregate=aggregate)
        try:
            await self._mover.move(record, retry_topic(stream_of(record), self.group, number), reason="record", error=error, not_before_ms=due_ms)
        except MessageSizeTooLargeError:
            return await self._give_up(record, error, "too large for the retry topic")
        return "retried"

    async def _give_up(self, record: ConsumerRecord, error: BaseException, reason: str) -> str:
        """Topic, then table, then the offset: a crash in between repeats, and the row is unique."""
        try:
            await self._mover.move(record, dead_letter_topic(stream_of(record), self.group), reason=reason, error=error)
        except MessageSizeTooLargeError:
            # Its headers made it too large for Kafka; the table has no such limit, and the partition must go on.
            log.warning("record.not_in_dead_letter_topic", group=self.group)
        async with self._context.db.transaction() as connection:
            await self._park(connection, self.group, record, error)
        await failpoints.hit("between-dead-letter-and-offset-commit")
        return "dead"


def _key_text(record: ConsumerRecord) -> str:
    return (record.key or b"").decode("utf-8", "backslashreplace")
