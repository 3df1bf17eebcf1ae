"""What happens to a record that failed: the whole table."""

from __future__ import annotations

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, MessageSizeTooLargeError

from service.errors import DependencyUnavailable, NotFound, Overloaded
from service.foundation.redis import RedisAway
from service.payments import ProviderAway, ProviderError
from workers.envelope import Poison
from workers.retry import DeadLetter, Decision, Kind, Pause, Tier, TryAgain, classify, decide

TIERS = (5.0, 30.0, 120.0, 600.0)

BLAME: list[tuple[BaseException, Kind]] = [
    (Poison("x"), "poison"),
    (DependencyUnavailable(), "infra"), (Overloaded(), "infra"), (ProviderAway(), "infra"), (RedisAway(), "infra"),
    (KafkaConnectionError(), "infra"), (KafkaTimeoutError(), "infra"), (MessageSizeTooLargeError(), "infra"),
    (ConnectionResetError(), "infra"), (OSError(), "infra"), (BrokenPipeError(), "infra"),
    (asyncpg.ConnectionDoesNotExistError("08003"), "infra"), (asyncpg.TooManyConnectionsError("53300"), "infra"),
    (asyncpg.AdminShutdownError("57P01"), "infra"),
    (asyncpg.ReadOnlySQLTransactionError("25006"), "infra"), (asyncpg.LockNotAvailableError("55P03"), "infra"),
    (asyncpg.DeadlockDetectedError("40P01"), "infra"), (asyncpg.SerializationError("40001"), "infra"), (asyncpg.DiskFullError("53100"), "infra"),
    (asyncpg.InterfaceError("closed"), "infra"),
    (ProviderError(), "record"), (TimeoutError(), "record"), (ValueError(), "record"), (KeyError("x"), "record"), (NotFound(), "record"),
    (asyncpg.CheckViolationError("23514"), "record"), (asyncpg.UndefinedColumnError("42703"), "record"), (asyncpg.DataError("22000"), "record"),
    (AssertionError(), "record"), (RuntimeError(), "record"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), BLAME, ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value)
def test_whose_fault_it_is(error: BaseException, kind: Kind) -> None:
    assert classify(error) == kind


# kind, tries, tiers done, tiers → with `uniform` answering its upper end
TABLE: list[tuple[Kind, int, int, tuple[float, ...], Decision]] = [
    ("poison", 1, 0, TIERS, DeadLetter("poison")),
    ("poison", 9, 4, (), DeadLetter("poison")),
    ("record", 1, 0, TIERS, TryAgain(0.1)),
    ("record", 2, 0, TIERS, TryAgain(0.4)),
    ("record", 3, 0, TIERS, Tier(1, 6.0)),
    ("record", 1, 1, TIERS, TryAgain(0.1)),
    ("record", 3, 1, TIERS, Tier(2, 36.0)),
    ("record", 3, 2, TIERS, Tier(3, 144.0)),
    ("record", 3, 3, TIERS, Tier(4, 720.0)),
    ("record", 3, 4, TIERS, DeadLetter("retries exhausted")),
    ("record", 3, 99, TIERS, DeadLetter("retries exhausted")),
    ("record", 2, 0, (), TryAgain(0.4)),
    ("record", 3, 0, (), DeadLetter("retries exhausted")),
]


@pytest.mark.parametrize(("kind", "tries", "done", "tiers", "wanted"), TABLE)
def test_what_is_next(kind: Kind, tries: int, done: int, tiers: tuple[float, ...], wanted: Decision) -> None:
    decision = decide(kind, tries=tries, tiers_done=done, tiers_s=tiers, pauses=0, uniform=lambda _, upper: upper)
    if isinstance(wanted, Tier):
        assert isinstance(decision, Tier)
        assert (decision.number, decision.delay_s) == (wanted.number, pytest.approx(wanted.delay_s))
    else:
        assert decision == wanted


@pytest.mark.parametrize(("pauses", "upper"), [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (50, 30), (5_000, 30)])
def test_an_outage_pauses_longer_and_longer_and_never_gives_up(pauses: int, upper: float) -> None:
    for tries, done in ((1, 0), (9, 9)):
        found = {decide("infra", tries=tries, tiers_done=done, tiers_s=TIERS, pauses=pauses, uniform=pick) for pick in (min, max)}
        assert found == {Pause(upper / 2), Pause(upper)}
    capped = decide("infra", tries=1, tiers_done=0, tiers_s=(), pauses=pauses, pause_cap_s=1.0, uniform=max)
    assert capped == Pause(1.0)


def test_tiers_spread_by_a_fifth_both_ways() -> None:
    low, high = (decide("record", tries=3, tiers_done=1, tiers_s=TIERS, pauses=0, uniform=pick) for pick in (min, max))
    assert isinstance(low, Tier)
    assert isinstance(high, Tier)
    assert (low.delay_s, high.delay_s) == (pytest.approx(24), pytest.approx(36))
