"""What happens to a record that failed: a pure decision, no effect, table-tested.

    poison  no retry can cure it                     → dead letter at once
    infra   the database, Kafka or the provider      → pause the group; no attempt is used, nothing is rerouted
    record  the handler failed or took too long      → 2 in-place tries, then the tiers, then dead letter

tests/unit/test_retry.py is the table.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

import asyncpg
from aiokafka.errors import KafkaError

from service.errors import Unavailable
from service.foundation.backoff import Uniform, equal_jitter, full_jitter, proportional
from service.foundation.db import CONNECTION_ERRORS, CONTENTION_ERRORS
from service.foundation.redis import RedisAway
from service.payments import ProviderAway
from workers.envelope import Poison

Kind = Literal["poison", "infra", "record"]

IN_PLACE_S: Final = (0.1, 0.4)
TIER_SPREAD: Final = 0.2
_PAUSE_BASE_S: Final = 1.0
_PAUSE_CAP_S: Final = 30.0

# OSError covers sockets; a handler's own TimeoutError is one slow record, so it is not here.
_INFRA: Final = (Unavailable, ProviderAway, RedisAway, KafkaError, *CONTENTION_ERRORS, *(e for e in CONNECTION_ERRORS if e is not OSError))


@dataclass(frozen=True, slots=True)
class TryAgain:
    """In place, after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Tier:
    """Republish to tier `number` (from 1), due in `delay_s`."""

    number: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Give up; a person decides."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop the group for `delay_s`, then try the same record again."""

    delay_s: float


Decision = TryAgain | Tier | DeadLetter | Pause


def classify(error: BaseException) -> Kind:
    """Whose fault it is."""
    if isinstance(error, Poison):
        return "poison"
    if isinstance(error, _INFRA) or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
        return "infra"
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in {"08", "53", "40"}:
        return "infra"
    return "record"


def decide(
    kind: Kind,
    *,
    tries: int,
    tiers_done: int,
    tiers_s: tuple[float, ...],
    pauses: int,
    pause_cap_s: float = _PAUSE_CAP_S,
    uniform: Uniform = random.uniform,
) -> Decision:
    """What to do next.

    `tries`: calls of the handler that failed in place so far (≥ 1); `tiers_done`: tiers already used up;
    `tiers_s`: the tiers' delays (empty: none); `pauses`: pauses in a row so far.
    """
    if kind == "poison":
        return DeadLetter("poison")
    if kind == "infra":
        return Pause(equal_jitter(pauses, base_s=_PAUSE_BASE_S, cap_s=pause_cap_s, uniform=uniform))
    if tries <= len(IN_PLACE_S):
        limit = IN_PLACE_S[tries - 1]
        return TryAgain(full_jitter(0, base_s=limit, cap_s=limit, uniform=uniform))
    if tiers_done < len(tiers_s):
        return Tier(tiers_done + 1, proportional(tiers_s[tiers_done], spread=TIER_SPREAD, uniform=uniform))
    return DeadLetter("retries exhausted")
