"""G1, G2, G6: pieces and money add up."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.faults.checker.evidence import Evidence
from tests.faults.checker.findings import Verdict


def stock_adds_up(evidence: Evidence) -> Verdict:
    """G1: available + reserved + shipped = seeded + restocked for every SKU, and available is never negative."""
    verdict = Verdict()
    moved = _moved(evidence)
    for row in evidence.stock:
        m = moved[row["sku"]]
        reserved = m["reserve"] - m["release"] - m["ship"]
        left, right = row["available"] + reserved + m["ship"], m["seed"] + m["restock"]
        detail = f"available {row['available']} + reserved {reserved} + shipped {m['ship']} = {left}, seeded and restocked {right}"
        verdict.expect(left == right and row["available"] >= 0 and reserved >= 0, row["sku"], detail)
    return verdict


def stock_is_sold_once_and_fully(evidence: Evidence) -> Verdict:
    """G2: never more held than there was, and nobody told "sold out" while pieces lay there throughout."""
    verdict = Verdict()
    moved, available = _moved(evidence), {row["sku"]: row["available"] for row in evidence.stock}
    for sku, m in moved.items():
        held, supply = m["reserve"] - m["release"], m["seed"] + m["restock"]
        verdict.expect(held <= supply, sku, f"{held} pieces are held or shipped, {supply} ever existed")
    for order in evidence.orders:
        if order["status"] == "rejected" and order.get("status_reason") == "out_of_stock":
            # Pieces that came back may have been missing at the time: only SKUs that never grew can convict.
            certain = all(not moved[line["sku"]]["release"] and not moved[line["sku"]]["restock"] for line in order["lines"])
            enough = all(available.get(line["sku"], 0) >= line["quantity"] for line in order["lines"])
            verdict.expect(not (certain and enough), order["id"], "rejected as out of stock, but every line was there all the time")
    return verdict


def money_balances(evidence: Evidence) -> Verdict:
    """G6: captured − refunded = total if paid or shipped, else 0; in our rows and at the provider."""
    verdict = Verdict()
    ours: dict[str, int] = defaultdict(int)
    theirs: dict[str, int] = defaultdict(int)
    for row in evidence.payments:
        ours[row["order_id"]] += {"captured": 1, "refunded": -1}.get(row["state"], 0) * row["amount_minor"]
    for entry in evidence.provider:
        theirs[entry["order_id"]] += {"captured": 1, "refunded": -1}.get(entry["state"], 0) * entry["amount_minor"]
    for order in evidence.orders:
        due = order["total_minor"] if order["status"] in {"paid", "shipped"} else 0
        verdict.expect(ours[order["id"]] == due, order["id"], f"{order['status']}: our rows hold {ours[order['id']]}, due is {due}")
        verdict.expect(theirs[order["id"]] == due, order["id"], f"{order['status']}: the provider holds {theirs[order['id']]}, due is {due}")
    known = {order["id"] for order in evidence.orders}
    for order_id, amount in theirs.items():
        if order_id not in known:
            verdict.expect(amount == 0, order_id, f"the provider holds {amount} for an order that does not exist")
    return verdict


def _moved(evidence: Evidence) -> dict[str, Counter[str]]:
    moved: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.ledger:
        moved[row["sku"]][row["kind"]] += row["quantity"]
    return moved
