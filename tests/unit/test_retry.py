"""The decision about a failed record, as a table."""

from __future__ import annotations

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError

from service.errors import DependencyUnavailable, NotFound, Overloaded
from service.foundation.redis import RedisAway
from service.payments import ProviderAway, ProviderError
from workers.envelope import Poison
from workers.retry import DeadLetter, Pause, Tier, TryAgain, classify, decide

_TIERS = (5.0, 30.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Poison("x"), "poison"),
        (DependencyUnavailable(), "infra"),
        (Overloaded(), "infra"),
        (ConnectionResetError(), "infra"),
        (KafkaConnectionError(), "infra"),
        (RedisAway(), "infra"),
        (ProviderAway(), "infra"),
        (asyncpg.DeadlockDetectedError("x"), "infra"),
        (asyncpg.TooManyConnectionsError("x"), "infra"),
        (asyncpg.ReadOnlySQLTransactionError("x"), "infra"),
        (asyncpg.CannotConnectNowError("x"), "infra"),
        (TimeoutError(), "record"),
        (ProviderError("500"), "record"),
        (asyncpg.UniqueViolationError("x"), "record"),
        (NotFound(), "record"),
        (KeyError("x"), "record"),
    ],
)
def test_whose_fault_it_is(error: Exception, kind: str) -> None:
    assert classify(error) == kind


def _highest(_low: float, high: float) -> float:
    return high


def test_poison_is_dead_at_once() -> None:
    assert decide("poison", tries=1, tiers_done=0, tiers_s=_TIERS, pauses=0) == DeadLetter("poison")


@pytest.mark.parametrize(("pauses", "delay_s"), [(0, 1.0), (1, 2.0), (4, 16.0), (5, 30.0), (50, 30.0)])
def test_infrastructure_pauses_and_uses_no_attempt(pauses: int, delay_s: float) -> None:
    assert decide("infra", tries=9, tiers_done=9, tiers_s=_TIERS, pauses=pauses, uniform=_highest) == Pause(delay_s)


@pytest.mark.parametrize(
    ("tries", "tiers_done", "expected"),
    [
        (1, 0, TryAgain(0.1)),
        (2, 0, TryAgain(0.4)),
        (3, 0, Tier(1, 6.0)),
        (3, 1, Tier(2, 36.0)),
        (3, 2, DeadLetter("retries exhausted")),
        (3, 7, DeadLetter("retries exhausted")),
    ],
)
def test_a_record_gets_two_tries_in_place_then_the_tiers_then_a_person(tries: int, tiers_done: int, expected: object) -> None:
    assert decide("record", tries=tries, tiers_done=tiers_done, tiers_s=_TIERS, pauses=0, uniform=_highest) == expected


def test_without_tiers_the_dead_letter_follows_the_tries() -> None:
    assert decide("record", tries=3, tiers_done=0, tiers_s=(), pauses=0) == DeadLetter("retries exhausted")
