"""C1, C3, G3, G4, L1: what clients read, who wins a race, and how much one may ask for."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from tests.faults.checker.evidence import Evidence, Fault, Op
from tests.faults.checker.findings import Verdict

_MOST_CALLS = 2_000


def cache_agrees(evidence: Evidence) -> Verdict:
    """C1: after writers stopped, a cached version is the row's."""
    verdict = Verdict()
    rows = {f"order:{order['id']}": order["version"] for order in evidence.orders}
    rows |= {f"product:{product['sku']}": product["version"] for product in evidence.products}
    for name, version in evidence.cache.items():
        found = rows.get(name, 0)
        verdict.expect(version == found, name.partition(":")[2], f"cached version {version}, the row has {found or 'none'}")
    return verdict


def clients_read_their_writes(evidence: Evidence) -> Verdict:
    """C3: after a client's 2xx write its reads see at least that version (calls that touch a Redis fault aside)."""
    verdict = Verdict()
    written: dict[tuple[str, str], list[Op]] = defaultdict(list)
    for op in evidence.operations:
        if op.outcome == "ok" and op.order_id and op.kind != "get":
            written[op.client, op.order_id].append(op)
    for op in evidence.operations:
        if op.kind != "get" or op.outcome != "ok" or evidence.touches(op, "redis"):
            continue
        before = [w for w in written.get((op.client, op.order_id), []) if w.completed <= op.invoked and not evidence.touches(w, "redis")]
        newest = max((w.version for w in before), default=0)
        if newest:
            verdict.expect(op.version >= newest, op.order_id, f"{op.client} wrote version {newest} and read {op.version}", at=op.invoked)
    return verdict


def one_writer_wins(evidence: Evidence) -> Verdict:
    """G3: of all writers naming one version in If-Match, one succeeds."""
    verdict = Verdict()
    winners: dict[tuple[str, int], set[tuple[str, str]]] = defaultdict(set)
    for op in evidence.operations:
        if op.if_match and op.outcome == "ok":
            winners[op.order_id, op.if_match].add((op.principal, op.key))
    for (order_id, version), keys in winners.items():
        verdict.expect(len(keys) == 1, order_id, f"{len(keys)} writers replaced version {version}")
    return verdict


def walks_see_everything_once(evidence: Evidence) -> Verdict:
    """G4: walking the pages while others insert returns every order that was there before, once."""
    verdict = Verdict()
    for op in evidence.operations:
        if op.kind == "walk" and op.outcome == "ok":
            for order_id in op.before:
                count = op.seen.count(order_id)
                verdict.expect(count == 1, order_id, f"walk {op.id} of {op.client} saw it {count} times")
    return verdict


def limits_hold(evidence: Evidence) -> Verdict:
    """L1: within any time D a principal was admitted at most (q + q·D/w) × 1.02; a Redis fault in that time may give another such sum."""
    verdict = Verdict()
    admitted: dict[str, list[Op]] = defaultdict(list)
    for op in evidence.operations:
        if op.cost and op.status and op.status not in {401, 429, 503}:
            admitted[op.principal].append(op)
    for principal, ops in admitted.items():
        for policy in evidence.policies:
            worst = _worst_excess(ops, evidence.faults, quota=policy["quota"], window_s=policy["window_s"])
            verdict.expect(worst <= 1.02, principal, f"admitted {worst:.2f} × what policy {policy['name']} allows")
    return verdict


def _worst_excess(ops: list[Op], faults: list[Fault], *, quota: int, window_s: float) -> float:
    """Largest ratio of cost to allowance over windows that contain whole calls: those were surely charged inside.

    Each Redis fault a window touches may have started the bucket afresh, or left each process to its own, as a call may say itself.
    """
    ordered = sorted(ops, key=lambda op: op.completed)
    away = sorted((fault for fault in faults if fault.target == "redis"), key=lambda fault: fault.begin)
    ends = [op.completed for op in ordered]
    worst = 0.0
    for begin in sorted(op.invoked for op in ops)[:_MOST_CALLS]:
        since = [fault.begin for fault in away if fault.end >= begin]
        spent = met = alone = 0
        for op in ordered[bisect_left(ends, begin) :]:
            if op.invoked >= begin:
                spent += op.cost
                alone |= op.degraded
                while met < len(since) and since[met] <= op.completed:
                    met += 1
                worst = max(worst, spent / (quota + quota * (op.completed - begin) / window_s) / (1 + max(met, alone)))
    return worst
