"""I1–I4: what an Idempotency-Key promises."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from tests.faults.checker.evidence import Evidence, Op
from tests.faults.checker.findings import Verdict

_IMMUTABLE = ("customer_id", "currency", "total_minor")
_REUSED = "idempotency-key-reused"


def answered_orders_exist(evidence: Evidence) -> Verdict:
    """I1: every 201 is in the database exactly once, as answered."""
    verdict = Verdict()
    rows = defaultdict(list)
    for order in evidence.orders:
        rows[order["id"]].append(order)
    for op in _ok(evidence, "place"):
        found = rows.get(op.order_id, [])
        verdict.expect(len(found) == 1, op.order_id, f"operation {op.id} was answered 201, the table has {len(found)} such orders")
        if len(found) != 1:
            continue
        wrong = [name for name in _IMMUTABLE if name in op.answer and op.answer[name] != found[0][name]]
        if "lines" in op.answer and _lines(op.answer) != _lines(found[0]):
            wrong.append("lines")
        verdict.expect(not wrong, op.order_id, f"answered and stored differ in {', '.join(wrong)}")
    return verdict


def one_order_a_key(evidence: Evidence) -> Verdict:
    """I2: at most one order per (principal, key), and no order that no key's answer names."""
    verdict = Verdict()
    for (principal, key), ops in _by_key(evidence, "place").items():
        ids = {op.order_id for op in ops if op.outcome == "ok"}
        detail = f"key {key} of {principal} was answered with {len(ids)} orders: {', '.join(sorted(ids))}"
        verdict.expect(len(ids) <= 1, min(ids, default=key), detail)
    named: dict[str, int] = defaultdict(int)
    for row in evidence.keys:
        if row["status"] == 201:
            named[row["order_id"]] += 1
    for order in evidence.orders:
        verdict.expect(named[order["id"]] == 1, order["id"], f"{named[order['id']]} stored answers name this order")
    return verdict


def refusals_leave_nothing(evidence: Evidence) -> Verdict:
    """I3: a key that only ever met a definite 4xx has no row and no order."""
    verdict = Verdict()
    stored = {(row["principal"], row["key"]) for row in evidence.keys}
    for owner, ops in _by_key(evidence).items():
        fails = [op for op in ops if op.outcome == "fail" and op.slug != _REUSED]
        last = max(ops, key=lambda op: op.completed)
        if fails and not any(op.outcome == "ok" for op in ops) and last.outcome == "fail":
            verdict.expect(owner not in stored, owner[1], f"answered {last.status} {last.slug}, yet an answer is stored for the key")
    return verdict


def replays_are_identical(evidence: Evidence) -> Verdict:
    """I4: same key and body → the same bytes; another body → 422; a refusal after a success never."""
    verdict = Verdict()
    stored = {(row["principal"], row["key"]): row for row in evidence.keys}
    for owner, ops in _by_key(evidence).items():
        good = sorted((op for op in ops if op.outcome == "ok"), key=lambda op: op.completed)
        for first, other in pairwise(good):
            same = (first.body_hash, first.answer_hash, first.status, first.location, first.etag)
            differs = (other.body_hash, other.answer_hash, other.status, other.location, other.etag) != same
            verdict.expect(not differs, owner[1], f"operations {first.id} and {other.id} were answered differently to one key")
        if good:
            fresh = [op for op in good if not op.replayed]
            verdict.expect(len(fresh) <= 1, owner[1], f"{len(fresh)} answers to one key claim to be the first")
            row = stored.get(owner)
            matches = row is not None and row["answer_hash"] == good[0].answer_hash
            verdict.expect(matches, owner[1], "the stored answer is not the one given" if row else "answered 2xx, and nothing is stored for the key")
            for op in ops:
                if op.outcome == "fail" and op.invoked > good[0].completed:
                    allowed = op.slug == _REUSED and op.body_hash != good[0].body_hash
                    verdict.expect(allowed, owner[1], f"operation {op.id} was refused with {op.status} {op.slug} after the key had been answered")
    return verdict


def _ok(evidence: Evidence, kind: str) -> list[Op]:
    return [op for op in evidence.operations if op.kind == kind and op.outcome == "ok"]


def _by_key(evidence: Evidence, kind: str = "") -> dict[tuple[str, str], list[Op]]:
    grouped: dict[tuple[str, str], list[Op]] = defaultdict(list)
    for op in evidence.operations:
        if op.key and (not kind or op.kind == kind):
            grouped[op.principal, op.key].append(op)
    return grouped


def _lines(order: dict[str, object]) -> list[tuple[object, ...]]:
    lines: list[dict[str, object]] = order["lines"]  # type: ignore[assignment]
    return sorted((line["sku"], line["quantity"], line["unit_price_minor"]) for line in lines)
