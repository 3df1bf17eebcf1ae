"""The list of promises, in the order they are printed."""

from __future__ import annotations

from typing import Final

from tests.faults.checker import delivery, hygiene, keyed, reading, stock_money
from tests.faults.checker.findings import Check

CHECKS: Final = (
    Check("I1", "every 201 is stored once, as answered", keyed.answered_orders_exist),
    Check("I2", "one order a key", keyed.one_order_a_key),
    Check("I3", "a refusal leaves nothing", keyed.refusals_leave_nothing),
    Check("I4", "replays are identical", keyed.replays_are_identical),
    Check("O1", "events in Kafka = versions committed", delivery.versions_reach_kafka),
    Check("O2", "first deliveries are 1, 2, 3 …", delivery.versions_arrive_in_order),
    Check("O3", "nothing rolled back is said", delivery.nothing_rolled_back_is_said),
    Check("O4", "the outbox drains, Kafka away or not", delivery.outbox_drains),
    Check("W1", "every event terminal", delivery.every_event_ends),
    Check("W2", "effects happen once", delivery.effects_happen_once),
    Check("W5", "no unexpected dead letter", delivery.outages_kill_no_letter),
    Check("C1", "cached versions are the rows'", reading.cache_agrees),
    Check("C3", "clients read their writes", reading.clients_read_their_writes),
    Check("L1", "rate limits hold", reading.limits_hold),
    Check("G1", "stock adds up", stock_money.stock_adds_up),
    Check("G2", "sold once and fully", stock_money.stock_is_sold_once_and_fully),
    Check("G3", "one If-Match writer wins", reading.one_writer_wins),
    Check("G4", "walks see everything once", reading.walks_see_everything_once),
    Check("G5", "version = number of events", delivery.versions_are_events),
    Check("G6", "money balances, at the provider too", stock_money.money_balances),
    Check("X1", "nobody sees another's data", hygiene.nobody_sees_another),
    Check("X2", "nothing secret is written", hygiene.nothing_secret_is_written),
    Check("X3", "nothing grows", hygiene.nothing_grows),
    Check("X4", "it heals alone", hygiene.it_heals_alone),
    Check("X5", "no call is answered 500", hygiene.nothing_surprises),
)
