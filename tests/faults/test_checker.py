"""The checker finds what it is for: one good history, and for each promise hand-made bad ones. Nothing runs here."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checker.checks import CHECKS
from tests.faults.checker.delivery import HANDLES
from tests.faults.checker.evidence import Evidence, Fault, Op
from tests.faults.checker.report import exit_code, judge_all, render
from workers.main import GROUPS

LINES = [{"sku": "S1", "quantity": 2, "unit_price_minor": 500}]


def _place(number: int, at: float, **changes: object) -> Op:
    facts: dict[str, object] = {
        "id": number, "client": "c1", "principal": "anna", "kind": "place", "invoked": at, "completed": at + 0.1, "status": 201, "key": "k1",
        "body_hash": "b1", "answer_hash": "a1", "order_id": "o1", "version": 1, "etag": '"1.1"', "location": "/v1/orders/o1", "cost": 5,
        "answer": {"customer_id": "anna", "currency": "EUR", "total_minor": 1000, "lines": LINES}, "canaries": ["anna"],
    }  # fmt: skip
    return Op(**facts | changes)  # type: ignore[arg-type]


def _good() -> Evidence:
    """Two orders: one replayed and paid, one cancelled after its charge and refunded; everything adds up."""
    histories = {"o1": ["placed", "reserved", "paid"], "o2": ["placed", "reserved", "paid", "cancelled", "refunded"]}
    events = [
        {"event_id": f"{order}-{n}", "aggregate_type": "order", "aggregate_id": order, "version": n, "type": f"order.{what}", "sent": True}
        for order, steps in histories.items()
        for n, what in enumerate(steps, start=1)
    ]
    orders = [
        {"id": o, "customer_id": "anna", "status": s, "status_reason": None, "version": v, "currency": "EUR", "total_minor": 1000, "lines": LINES}
        for o, s, v in (("o1", "paid", 3), ("o2", "cancelled", 5))
    ]
    return Evidence(
        operations=[
            _place(1, 0.0), _place(2, 1.0, replayed=True),
            _place(3, 2.0, key="k2", body_hash="b2", answer_hash="a2", order_id="o2", location="/v1/orders/o2"),
            Op(4, "c1", "anna", "cancel", 3.0, 3.1, 200, key="k3", body_hash="b3", answer_hash="a3", order_id="o2", version=4, if_match=3, cost=5),
            Op(5, "c1", "anna", "get", 4.0, 4.1, 200, order_id="o2", version=4, cost=1, canaries=["anna"]),
            Op(6, "c1", "anna", "place", 5.0, 5.1, 422, slug="validation-failed", key="k4", body_hash="b4", cost=5),
            Op(7, "c1", "anna", "walk", 6.0, 6.5, 200, before=["o1", "o2"], seen=["o2", "o1"], cost=2),
        ],
        faults=[Fault("refuse", "redis", 90.0, 91.0)],
        orders=orders,
        keys=[
            {"principal": "anna", "key": "k1", "status": 201, "answer_hash": "a1", "order_id": "o1"},
            {"principal": "anna", "key": "k2", "status": 201, "answer_hash": "a2", "order_id": "o2"},
            {"principal": "anna", "key": "k3", "status": 200, "answer_hash": "a3", "order_id": "o2"},
        ],
        stock=[{"sku": "S1", "available": 8}],
        ledger=[
            {"ref_id": "seed", "sku": "S1", "kind": "seed", "quantity": 10}, {"ref_id": "o1", "sku": "S1", "kind": "reserve", "quantity": 2},
            {"ref_id": "o2", "sku": "S1", "kind": "reserve", "quantity": 2}, {"ref_id": "o2", "sku": "S1", "kind": "release", "quantity": 2},
        ],
        payments=[
            {"order_id": "o1", "kind": "charge", "state": "captured", "amount_minor": 1000, "idempotency_key": "charge:o1"},
            {"order_id": "o2", "kind": "charge", "state": "captured", "amount_minor": 1000, "idempotency_key": "charge:o2"},
            {"order_id": "o2", "kind": "refund", "state": "refunded", "amount_minor": 1000, "idempotency_key": "refund:o2"},
        ],
        inbox=[{"consumer": group, "event_id": e["event_id"]} for group, types in HANDLES.items() for e in events if e["type"] in types],
        events=events,
        timeline=[{"order_id": e["aggregate_id"], "version": e["version"]} for e in events],
        products=[{"sku": "S1", "version": 1}],
        records=[{"topic": "orders.events.v1", "partition": 0, "offset": n, **{k: e[k] for k in ("event_id", "type", "aggregate_id", "version")}}
                 for n, e in enumerate(events)],
        provider=[
            {"op": "charge", "key": "charge:o1", "order_id": "o1", "amount_minor": 1000, "state": "captured"},
            {"op": "charge", "key": "charge:o2", "order_id": "o2", "amount_minor": 1000, "state": "captured"},
            {"op": "refund", "key": "refund:o2", "order_id": "o2", "amount_minor": 1000, "state": "refunded"},
        ],
        cache={"order:o1": 3},
        logs=[{"process": "api", "line": '{"event": "http.request"}'}],
        secrets=["canary-of-anna"],
        policies=[{"name": "burst", "quota": 20, "window_s": 1.0}],
        resources=[{"process": "api", "phase": phase, "rss_mib": 80.0, "tasks": 5, "sockets": 12} for phase in ("warm", "quiet")],
        phases={"healed": 100.0, "first_ok": 101.0, "ready": 102.0, "drained": 110.0},
    )  # fmt: skip


Spoil = Callable[[Evidence], object]


def _second_order_of_key_one(e: Evidence) -> None:
    e.operations.append(_place(20, 8.0, order_id="o2", replayed=True))


def _burst(e: Evidence) -> None:
    e.operations += [Op(100 + n, "c9", "greedy", "get", 10.0 + n / 1000, 10.1 + n / 1000, 200, cost=1) for n in range(60)]


def _loser_wins_too(e: Evidence) -> None:
    e.operations.append(Op(30, "c2", "bert", "cancel", 3.0, 3.2, 200, key="k9", answer_hash="x", order_id="o2", version=4, if_match=3))


def _kafka_outage_costs_a_write(e: Evidence) -> None:
    e.faults.append(Fault("down", "kafka", 20.0, 30.0))
    e.operations.append(Op(40, "c1", "anna", "place", 25.0, 26.0, 503, key="k7"))


def _stale_order(e: Evidence) -> None:
    e.orders[0] |= {"status": "rejected", "status_reason": "out_of_stock"}
    e.ledger = [row for row in e.ledger if row["kind"] == "seed"]


BAD: list[tuple[str, str, Spoil]] = [
    ("I1", "a 201 that is not stored", lambda e: e.orders.pop(0)),
    ("I1", "stored twice", lambda e: e.orders.append(e.orders[0])),
    ("I1", "stored with another total", lambda e: e.orders[0].update(total_minor=999)),
    ("I1", "stored with other lines", lambda e: e.orders[0].update(lines=[{**LINES[0], "quantity": 3}])),
    ("I2", "two orders for one key", _second_order_of_key_one),
    ("I2", "an order no key answers for", lambda e: e.keys.pop(0)),
    ("I3", "a refused key with a row", lambda e: e.keys.append({**e.keys[0], "key": "k4", "order_id": "o9"})),
    ("I4", "a replay with other bytes", lambda e: setattr(e.operations[1], "answer_hash", "other")),
    ("I4", "a replay with another status", lambda e: setattr(e.operations[1], "status", 200)),
    ("I4", "two firsts", lambda e: setattr(e.operations[1], "replayed", False)),
    ("I4", "a success for another body", lambda e: setattr(e.operations[1], "body_hash", "other")),
    ("I4", "refused after a success", lambda e: e.operations.append(_place(21, 9.0, status=409, slug="price-changed"))),
    ("I4", "the stored answer differs", lambda e: e.keys[0].update(answer_hash="other")),
    ("O1", "an event that never reached Kafka", lambda e: e.records.pop(2)),
    ("O2", "version 2 before version 1", lambda e: (e.records[0].update(offset=1), e.records[1].update(offset=0))),
    ("O3", "an event of an order that does not exist", lambda e: e.records.append({**e.records[0], "offset": 99, "aggregate_id": "ghost"})),
    ("O4", "a row left in the outbox", lambda e: e.events[0].update(sent=False)),
    ("O4", "a write that failed while Kafka was away", _kafka_outage_costs_a_write),
    ("W1", "an event that inventory never finished", lambda e: e.inbox.remove({"consumer": "inventory", "event_id": "o1-1"})),
    ("W1", "an event missing from the timeline", lambda e: e.timeline.pop()),
    ("W2", "two decisions about one provider key", lambda e: e.provider.append(dict(e.provider[0]))),
    ("W2", "one order charged under two keys", lambda e: e.provider.append({**e.provider[0], "key": "charge:o1-again"})),
    ("W2", "a reservation larger than the order", lambda e: e.ledger[1].update(quantity=4)),
    ("W2", "released and shipped", lambda e: e.ledger.append({"ref_id": "o2", "sku": "S1", "kind": "ship", "quantity": 2})),
    ("W5", "a dead letter nobody asked for", lambda e: e.dead_letters.append(
        {"consumer": "payments", "event_id": "o1-2", "aggregate_id": "o1", "status": "open", "error_class": "OSError", "error_message": "reset"})),
    ("C1", "a stale entry", lambda e: e.cache.update({"order:o1": 2})),
    ("C1", "an entry for nothing", lambda e: e.cache.update({"order:gone": 1})),
    ("C3", "a read older than one's own write", lambda e: setattr(e.operations[4], "version", 3)),
    ("L1", "60 calls in a tenth of a second", _burst),
    ("G1", "a piece lost", lambda e: e.stock[0].update(available=7)),
    ("G1", "a piece drawn twice", lambda e: e.stock[0].update(available=6)),
    ("G2", "sold more than there was", lambda e: e.ledger.append({"ref_id": "o3", "sku": "S1", "kind": "reserve", "quantity": 9})),
    ("G2", "sold out while pieces lay there", _stale_order),
    ("W2", "a step said twice", lambda e: e.events.append({**e.events[2], "event_id": "again"})),
    ("G3", "two winners of one version", _loser_wins_too),
    ("G4", "an order missing from the walk", lambda e: e.operations[6].seen.remove("o1")),
    ("G4", "an order twice on the walk", lambda e: e.operations[6].seen.append("o1")),
    ("G5", "a version without an event", lambda e: e.orders[0].update(version=4)),
    ("G5", "an event written twice", lambda e: e.events.append({**e.events[0], "event_id": "again"})),
    ("G5", "a lost outbox row", lambda e: e.events.pop(1)),
    ("G6", "paid, but the provider holds nothing", lambda e: e.provider.pop(0)),
    ("G6", "cancelled without a refund", lambda e: (e.provider.pop(), e.payments.pop())),
    ("G6", "money for an order that does not exist", lambda e: e.provider.append(
        {"op": "charge", "key": "charge:x", "order_id": "x", "amount_minor": 5, "state": "captured"})),
    ("X1", "another customer's canary", lambda e: e.operations[4].canaries.append("bert")),
    ("X2", "a secret in a log", lambda e: e.logs.append({"process": "api", "line": '{"note": "canary-of-anna"}'})),
    ("X2", "a log line that is no object", lambda e: e.logs.append({"process": "api", "line": "Traceback (most recent call last):"})),
    ("X3", "memory that grows", lambda e: e.resources[1].update(rss_mib=130.0)),
    ("X3", "a leaked socket", lambda e: e.resources[1].update(sockets=13)),
    ("X4", "first ok too late", lambda e: e.phases.update(first_ok=106.0)),
    ("X5", "a surprise", lambda e: e.operations.append(Op(99, "anna", "anna", "get", 1.0, 2.0, 500, slug="internal"))),
    ("X4", "never drained", lambda e: e.phases.pop("drained")),
]  # fmt: skip


def test_a_good_history_is_green_and_exercises_every_promise() -> None:
    evidence = _good()
    verdicts = judge_all(evidence)
    assert {name: verdict.violations for name, verdict in verdicts.items() if verdict.violations} == {}
    assert [name for name, verdict in verdicts.items() if not verdict.checked] == []
    assert exit_code(evidence, verdicts, [check.name for check in CHECKS])[0] == 0


@pytest.mark.parametrize(("name", "story", "spoil"), BAD, ids=[f"{name}: {story}" for name, story, _ in BAD])
def test_a_bad_history_is_found(name: str, story: str, spoil: Spoil) -> None:
    evidence = copy.deepcopy(_good())
    spoil(evidence)
    verdicts = judge_all(evidence)
    assert verdicts[name].violations, f"{story}: {name} did not notice"
    assert exit_code(evidence, verdicts, [])[0] == 1


def test_every_promise_has_a_bad_history() -> None:
    assert {check.name for check in CHECKS} == {name for name, _, _ in BAD}


def test_the_report_says_counts_bounds_and_timelines() -> None:
    evidence = _good()
    evidence.provider.pop(0)
    lines = list(render(evidence, judge_all(evidence)))
    assert any(line.startswith("W1 every event terminal") and "OK 0/" in line and "95 % UB" in line for line in lines)
    begin = next(n for n, line in enumerate(lines) if line.startswith("G6") and "VIOLATED" in line)
    assert "o1: paid: the provider holds 0, due is 1000" in lines[begin + 1]
    assert any("event      order.paid v3" in line for line in lines[begin:])


def test_nothing_checked_is_not_green() -> None:
    empty = Evidence()
    assert exit_code(empty, judge_all(empty), [])[0] == 2
    evidence = _good()
    evidence.cache.clear()
    assert exit_code(evidence, judge_all(evidence), ["C1"]) == (2, "not exercised, though required: C1")


def test_the_handlers_are_those_the_workers_have() -> None:
    assert {group: frozenset(GROUPS[group]) for group in HANDLES} == HANDLES


def test_it_is_a_program(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    evidence = _good()
    good.write_text(json.dumps(evidence.to_json()))
    evidence.stock[0]["available"] = 9
    bad.write_text(json.dumps(evidence.to_json()))
    codes = {}
    for file in (good, bad, tmp_path / "missing.json"):
        command = [sys.executable, "-m", "tests.faults.checker", "--evidence", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        codes[file.stem] = (done.returncode, (done.stdout or done.stderr).splitlines()[-1])
    assert codes["good"] == (0, "all promises kept")
    assert codes["bad"] == (1, "VIOLATED: G1")
    assert codes["missing"][0] == 2
    assert "cannot be read" in codes["missing"][1]
