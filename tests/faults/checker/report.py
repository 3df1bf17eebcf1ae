"""One line a promise; for a broken one the first three timelines."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tests.faults.checker.checks import CHECKS
from tests.faults.checker.evidence import Evidence, Op
from tests.faults.checker.findings import Verdict

_TIMELINES, _STEPS = 3, 14
_BEFORE_S, _AFTER_S = 8.0, 2.0


def judge_all(evidence: Evidence) -> dict[str, Verdict]:
    """Every check's verdict by name."""
    return {check.name: check.judge(evidence) for check in CHECKS}


def render(evidence: Evidence, verdicts: dict[str, Verdict]) -> Iterator[str]:
    """The report's lines."""
    for check in CHECKS:
        verdict = verdicts[check.name]
        head = f"{check.name} {check.text:<40}"
        if verdict.violations:
            yield f"{head} VIOLATED {len(verdict.violations):,}/{verdict.checked:,}"
            for violation in verdict.violations[:_TIMELINES]:
                yield f"   {violation.subject}: {violation.detail}"
                yield from (f"      {step}" for step in timeline(evidence, violation.subject, at=violation.at))
        elif not verdict.checked:
            yield f"{head} not exercised"
        else:
            yield f"{head} OK 0/{verdict.checked:,} (95 % UB {_percent(verdict.upper_bound)} %)"


def exit_code(evidence: Evidence, verdicts: dict[str, Verdict], required: Collection[str]) -> tuple[int, str]:
    """0 kept · 1 a promise is broken · 2 the run proves nothing; and why."""
    broken = [name for name, verdict in verdicts.items() if verdict.violations]
    if broken:
        return 1, f"VIOLATED: {', '.join(broken)}"
    if not evidence.operations:
        return 2, "the history holds no operation: nothing was proven"
    idle = [name for name in required if not verdicts[name].checked]
    if idle:
        return 2, f"not exercised, though required: {', '.join(idle)}"
    return 0, "all promises kept"


def timeline(evidence: Evidence, subject: str, *, at: float = 0.0) -> list[str]:
    """What is known about an order, key, SKU or principal: calls and faults by time (around `at`, if given), then rows."""
    ops = [op for op in evidence.operations if subject in {op.order_id, op.key, op.principal}]
    ops = [op for op in ops if not at or (at - _BEFORE_S <= op.completed and op.invoked <= at + _AFTER_S)]
    steps = [(op.invoked, _call(op)) for op in ops]
    if steps:
        first, last = min(op.invoked for op in ops), max(op.completed for op in ops)
        overlapping = [fault for fault in evidence.faults if fault.begin <= last and first <= fault.end]
        steps += [(fault.begin, f"fault {fault.kind} on {fault.target} for {fault.end - fault.begin:.2f} s") for fault in overlapping]
    begin = min((at for at, _ in steps), default=0.0)
    told = [f"+{at - begin:7.3f} s  {text}" for at, text in sorted(steps)]
    told += [f"order      {o['status']} v{o['version']} total {o['total_minor']}" for o in evidence.orders if o["id"] == subject]
    told += [f"event      {e['type']} v{e['version']} {'sent' if e['sent'] else 'waiting'}" for e in evidence.events if e["aggregate_id"] == subject]
    told += [f"ledger     {r['kind']} {r['quantity']} of {r['sku']}" for r in evidence.ledger if subject == r["ref_id"]]
    told += [f"payment    {p['kind']} {p['state']} {p['amount_minor']}" for p in evidence.payments if p["order_id"] == subject]
    told += [f"provider   {p['op']} {p['state']} {p['amount_minor']}" for p in evidence.provider if p["order_id"] == subject]
    told += [f"dead       {d['consumer']} {d['error_class']} ({d['status']})" for d in evidence.dead_letters if d["aggregate_id"] == subject]
    return told if len(told) <= _STEPS else [*told[:_STEPS], f"… and {len(told) - _STEPS} more"]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _call(op: Op) -> str:
    return f"{op.client} {op.kind} key={op.key or '–'} → {op.status} {op.slug} v{op.version}{' replay' if op.replayed else ''}"
