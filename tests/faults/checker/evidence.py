"""What the checker judges: the clients' history, the fault log, the tables, the topics, the provider's log.

Plain data, so that a bad history can be written by hand and a real one saved. Times are seconds of one clock.
Tests: tests/faults/test_checker.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

Row = dict[str, Any]
_INFO: Final = frozenset({0, 401, 408, 429})


@dataclass(slots=True)
class Op:
    """One client call, from just before it was sent to just after its answer. `status` 0: no answer came."""

    id: int
    client: str
    principal: str
    kind: str  # place, cancel, ship, restock, get, walk
    invoked: float
    completed: float
    status: int
    slug: str = ""  # a problem's code
    key: str = ""
    body_hash: str = ""
    answer_hash: str = ""
    order_id: str = ""
    version: int = 0
    etag: str = ""
    location: str = ""
    replayed: bool = False
    degraded: bool = False  # the limiter had no Redis for this call
    if_match: int = 0
    cost: int = 0
    answer: Row = field(default_factory=dict)  # an order, as answered
    before: list[str] = field(default_factory=list)  # walk: ids that existed before it began
    seen: list[str] = field(default_factory=list)  # walk: ids on its pages, in order
    canaries: list[str] = field(default_factory=list)  # principals whose canary stood anywhere in the answer

    @property
    def outcome(self) -> Literal["ok", "fail", "info"]:
        """ok: 2xx · fail: decided, nothing happened · info: may or may not have happened."""
        if 200 <= self.status < 300:
            return "ok"
        if self.status in _INFO or self.status >= 500 or (self.status == 409 and self.slug == "idempotency-in-flight"):
            return "info"
        return "fail"


@dataclass(slots=True)
class Fault:
    """One fault: what, on what (redis, kafka, postgres, api, relay, worker, …), from when to when."""

    kind: str
    target: str
    begin: float
    end: float


@dataclass(slots=True)
class Evidence:
    """Everything that was collected; what is empty was not collected."""

    operations: list[Op] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)  # id, customer_id, status, version, currency, total_minor, lines
    keys: list[Row] = field(default_factory=list)  # principal, key, status, answer_hash, order_id
    stock: list[Row] = field(default_factory=list)  # sku, available
    ledger: list[Row] = field(default_factory=list)  # ref_id, sku, kind, quantity
    payments: list[Row] = field(default_factory=list)  # order_id, kind, state, amount_minor, idempotency_key
    inbox: list[Row] = field(default_factory=list)  # consumer, event_id
    events: list[Row] = field(default_factory=list)  # event_id, aggregate_type, aggregate_id, version, type, sent
    timeline: list[Row] = field(default_factory=list)  # order_id, version
    dead_letters: list[Row] = field(default_factory=list)  # consumer, event_id, aggregate_id, status, error_class, error_message
    products: list[Row] = field(default_factory=list)  # sku, version
    records: list[Row] = field(default_factory=list)  # topic, partition, offset, event_id, type, aggregate_id, version
    provider: list[Row] = field(default_factory=list)  # op, key, order_id, amount_minor, state
    cache: dict[str, int] = field(default_factory=dict)  # "order:<id>" → version
    logs: list[Row] = field(default_factory=list)  # process, line
    secrets: list[str] = field(default_factory=list)  # strings that may stand in no log line and no dead letter
    policies: list[Row] = field(default_factory=list)  # name, quota, window_s
    resources: list[Row] = field(default_factory=list)  # process, phase (warm|quiet), rss_mib, tasks, sockets
    phases: dict[str, float] = field(default_factory=dict)  # healed, first_ok, drained, ready
    expected_dead: list[str] = field(default_factory=list)  # aggregates that were made to fail

    def touches(self, op: Op, *targets: str) -> bool:
        """True if a fault on one of `targets` overlaps the call."""
        return any(f.target in targets and f.begin <= op.completed and op.invoked <= f.end for f in self.faults)

    def to_json(self) -> Row:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Row) -> Evidence:
        """From plain data. Raises `TypeError` for a field it does not know."""
        made = dict(data)
        made["operations"] = [Op(**op) for op in made.get("operations", [])]
        made["faults"] = [Fault(**fault) for fault in made.get("faults", [])]
        unknown = set(made) - {f.name for f in fields(cls)}
        if unknown:
            raise TypeError(f"unknown parts of evidence: {', '.join(sorted(unknown))}")
        return cls(**made)
