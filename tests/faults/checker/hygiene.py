"""X1–X5: nothing leaks, nothing grows, everything comes back by itself, and nothing surprises the service."""

from __future__ import annotations

import json
from collections import defaultdict

from tests.faults.checker.evidence import Evidence, Row
from tests.faults.checker.findings import Verdict

_GROWTH, _FIRST_OK_S, _READY_S, _DRAIN_S = 1.5, 5.0, 10.0, 60.0


def nobody_sees_another(evidence: Evidence) -> Verdict:
    """X1: no answer to one customer carries another's canary."""
    verdict = Verdict()
    for op in evidence.operations:
        if op.status:
            foreign = sorted(set(op.canaries) - {op.principal})
            verdict.expect(not foreign, op.principal, f"operation {op.id} showed what belongs to {', '.join(foreign)}")
    return verdict


def nothing_secret_is_written(evidence: Evidence) -> Verdict:
    """X2: no secret or personal canary in a log line or dead letter; every log line is one JSON object."""
    verdict = Verdict()
    for entry in evidence.logs:
        found = [secret for secret in evidence.secrets if secret in entry["line"]]
        verdict.expect(not found, entry["process"], f"a secret stands in its log: {entry['line'][:120]}")
        verdict.expect(_is_object(entry["line"]), entry["process"], f"not one JSON object: {entry['line'][:120]}")
    for letter in evidence.dead_letters:
        found = [secret for secret in evidence.secrets if secret in f"{letter['error_class']} {letter['error_message']}"]
        verdict.expect(not found, letter["aggregate_id"], "a secret stands in a dead letter's message")
    return verdict


def nothing_grows(evidence: Evidence) -> Verdict:
    """X3: memory below 1.5 × warm, no more sockets and about as many tasks as when warm, once all is quiet."""
    verdict = Verdict()
    samples: dict[str, dict[str, Row]] = defaultdict(dict)
    for sample in evidence.resources:
        samples[sample["process"]][sample["phase"]] = sample
    for process, phases in samples.items():
        if {"warm", "quiet"} <= phases.keys():
            warm, quiet = phases["warm"], phases["quiet"]
            verdict.expect(quiet["rss_mib"] < _GROWTH * warm["rss_mib"], process, f"{warm['rss_mib']:.0f} → {quiet['rss_mib']:.0f} MiB")
            # A group's share of the partitions changes with its members, and a few tasks with it.
            for what, most in (("tasks", 1.25 * warm["tasks"] + 4), ("sockets", warm["sockets"])):
                verdict.expect(quiet[what] <= most, process, f"{what}: {warm[what]} when warm, {quiet[what]} when quiet")
    return verdict


def it_heals_alone(evidence: Evidence) -> Verdict:
    """X4: after the last heal the first ok within 5 s, ready within 10 s, drained within 60 s."""
    verdict = Verdict()
    healed = evidence.phases.get("healed")
    for name, bound_s in (("first_ok", _FIRST_OK_S), ("ready", _READY_S), ("drained", _DRAIN_S)):
        if healed is not None:
            reached = evidence.phases.get(name)
            detail = "never" if reached is None else f"after {reached - healed:.1f} s"
            verdict.expect(reached is not None and reached - healed <= bound_s, name, f"{name} {detail}, allowed {bound_s:g} s")
    return verdict


def nothing_surprises(evidence: Evidence) -> Verdict:
    """X5: whatever fails outside is a 503 or worked around; a 500 is a fault of our own."""
    verdict = Verdict()
    for op in evidence.operations:
        if op.status:
            verdict.expect(op.status != 500, op.order_id or op.key or op.principal, f"operation {op.id} ({op.kind}) was answered 500", at=op.invoked)
    return verdict


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
