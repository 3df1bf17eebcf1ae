"""O1–O4, W1, W2, W5, G5: every event is published, in order, and has its effect once."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.faults.checker.evidence import Evidence, Row
from tests.faults.checker.findings import Verdict

# Who must have an inbox row for which event; the handlers' tables say the same (held equal by a test).
HANDLES: dict[str, frozenset[str]] = {
    "inventory": frozenset({"order.placed", "order.cancelled", "order.rejected", "order.expired", "order.shipped"}),
    "payments": frozenset({"order.reserved", "order.cancelled", "order.expired"}),
    "notifications": frozenset({f"order.{what}" for what in ("paid", "rejected", "cancelled", "shipped", "expired", "refunded")}),
}
_MAIN = ("orders.events.v1", "catalog.events.v1")


def versions_reach_kafka(evidence: Evidence) -> Verdict:
    """O1: the distinct events in Kafka are the versions that were committed."""
    verdict = Verdict()
    published: dict[str, set[int]] = defaultdict(set)
    for record in _main(evidence):
        published[record["aggregate_id"]].add(record["version"])
    aside = _set_aside(evidence)
    for aggregate, first, last in _aggregates(evidence):
        if aggregate not in aside:
            wanted = set(range(first, last + 1))
            missing, extra = wanted - published[aggregate], published[aggregate] - wanted
            verdict.expect(not missing and not extra, aggregate, f"versions not in Kafka: {sorted(missing)}, in Kafka only: {sorted(extra)}")
    return verdict


def versions_arrive_in_order(evidence: Evidence) -> Verdict:
    """O2: the first delivery of each version comes after that of the version before (products begin with 2)."""
    verdict = Verdict()
    seen: dict[str, int] = {}
    for record in sorted(_main(evidence), key=lambda r: (r["topic"], r["partition"], r["offset"])):
        aggregate, version = record["aggregate_id"], record["version"]
        last = seen.get(aggregate, 0 if record["topic"] == _MAIN[0] else 1)
        if version > last:
            verdict.expect(version == last + 1, aggregate, f"version {version} was delivered first after {last}")
            seen[aggregate] = version
    return verdict


def nothing_rolled_back_is_said(evidence: Evidence) -> Verdict:
    """O3: every event in Kafka is about something that exists and was written by its transaction."""
    verdict = Verdict()
    exists = {order["id"] for order in evidence.orders} | {product["sku"] for product in evidence.products}
    written = {event["event_id"] for event in evidence.events}
    for record in _main(evidence):
        held = record["aggregate_id"] in exists and record["event_id"] in written
        verdict.expect(held, record["aggregate_id"], f"{record['type']} {record['version']} is in Kafka, but was never committed")
    return verdict


def outbox_drains(evidence: Evidence) -> Verdict:
    """O4: writes succeed while only Kafka is away, and afterwards nothing waits."""
    verdict = Verdict()
    aside = _set_aside(evidence)
    for event in evidence.events:
        verdict.expect(event["sent"] or event["aggregate_id"] in aside, event["aggregate_id"], f"{event['type']} still waits in the outbox")
    others = {fault.target for fault in evidence.faults} - {"kafka"}
    for op in evidence.operations:
        if op.kind in {"place", "cancel", "ship"} and evidence.touches(op, "kafka") and not evidence.touches(op, *others):
            held = op.outcome != "info" or op.status == 429
            verdict.expect(held, op.order_id or op.key, f"operation {op.id} got {op.status} while only Kafka was away", at=op.invoked)
    return verdict


def every_event_ends(evidence: Evidence) -> Verdict:
    """W1: each event ended in each group that handles it: inbox row (applied or superseded) or dead letter."""
    verdict = Verdict()
    ended = {(row["consumer"], row["event_id"]) for row in (*evidence.inbox, *evidence.dead_letters)}
    told = {(row["order_id"], row["version"]) for row in evidence.timeline}
    for event in evidence.events:
        for group, types in HANDLES.items():
            if event["type"] in types:
                held = (group, event["event_id"]) in ended
                verdict.expect(held, event["aggregate_id"], f"{event['type']} {event['version']} never ended in group {group}")
        if event["aggregate_type"] == "order":
            held = (event["aggregate_id"], event["version"]) in told or ("timeline", event["event_id"]) in ended
            verdict.expect(held, event["aggregate_id"], f"{event['type']} {event['version']} is not in the timeline")
    return verdict


def effects_happen_once(evidence: Evidence) -> Verdict:
    """W2: one decision a provider key, one charge and one refund an order, one reservation equal to its lines, each step said once."""
    verdict = Verdict()
    for (aggregate, kind), count in Counter((e["aggregate_id"], e["type"]) for e in evidence.events if e["aggregate_type"] == "order").items():
        verdict.expect(count == 1, aggregate, f"{count} × {kind} of one order")
    for key, count in Counter(entry["key"] for entry in evidence.provider).items():
        verdict.expect(count == 1, key.partition(":")[2], f"the provider decided {count} times about {key}")
    captured = Counter(e["order_id"] for e in evidence.provider if e["op"] == "charge" and e["state"] == "captured")
    for order_id, count in captured.items():
        verdict.expect(count == 1, order_id, f"charged {count} times at the provider")
    for (order_id, kind), count in Counter((row["order_id"], row["kind"]) for row in evidence.payments).items():
        verdict.expect(count == 1, order_id, f"{count} {kind} rows for one order")
    kinds: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in evidence.ledger:
        kinds[row["ref_id"]].setdefault(row["kind"], {})[row["sku"]] = row["quantity"]
    for order in evidence.orders:
        moves = kinds.get(order["id"], {})
        wanted = {line["sku"]: line["quantity"] for line in order["lines"]}
        if "reserve" in moves:
            verdict.expect(moves["reserve"] == wanted, order["id"], f"reserved {moves['reserve']}, ordered {wanted}")
        verdict.expect(not ({"release", "ship"} <= moves.keys()), order["id"], "released and shipped")
    return verdict


def outages_kill_no_letter(evidence: Evidence) -> Verdict:
    """W5: no dead letter, except for what was made to fail."""
    verdict = Verdict(checked=max(0, len(evidence.inbox) - len(evidence.dead_letters)))
    for letter in evidence.dead_letters:
        expected = letter["aggregate_id"] in evidence.expected_dead
        verdict.expect(expected, letter["aggregate_id"], f"dead letter of {letter['consumer']}: {letter['error_class']} {letter['error_message']}")
    return verdict


def versions_are_events(evidence: Evidence) -> Verdict:
    """G5: a version is the number of the aggregate's events (products: minus the seeded one)."""
    verdict = Verdict()
    counted: dict[str, list[int]] = defaultdict(list)
    for event in evidence.events:
        counted[event["aggregate_id"]].append(event["version"])
    for aggregate, first, last in _aggregates(evidence):
        versions = sorted(counted[aggregate])
        verdict.expect(versions == list(range(first, last + 1)), aggregate, f"at version {last}, its events have versions {versions}")
    return verdict


def _aggregates(evidence: Evidence) -> list[tuple[str, int, int]]:
    orders = [(order["id"], 1, order["version"]) for order in evidence.orders]
    return orders + [(product["sku"], 2, product["version"]) for product in evidence.products]


def _main(evidence: Evidence) -> list[Row]:
    return [record for record in evidence.records if record["topic"] in _MAIN]


def _set_aside(evidence: Evidence) -> set[str]:
    return {letter["aggregate_id"] for letter in evidence.dead_letters if letter["consumer"] == "relay" and letter["status"] == "open"}
