"""The first resource to saturate, named from what the service says about itself, with the line of evidence.

A queue forms in front of the narrowest place and then in front of everything before it: waits for the pool follow
from slow statements, full slots follow from both. So what is full is judged from the bottom up, and a cause is named
only when what lies below it is not full. Pure; each rule is a row in `tests/unit/test_load_saturation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.watch import Sample

_SUSTAINED: Final = 3  # samples in a row: half a second of anything is noise
_BUSY_CORE: Final = 0.85
_BUSY_MACHINE: Final = 0.92
_ROWS_READ: Final = 50_000.0  # a second, of one table
_ROWS_A_REQUEST: Final = 500.0
_LATE_MS: Final = 150.0
_IDLE: Final = 0.6
_MUCH_FOREIGN: Final = 0.3
_LOCKED, _FULL, _LAG, _OUTBOX_AGE_S = 3, 0.9, 200, 2.0


@dataclass(frozen=True, slots=True)
class Saturated:
    """What was full, since when, and how that was seen."""

    resource: str
    at_s: float
    evidence: str

    def __str__(self) -> str:
        return f"first to saturate: {self.resource} (after {self.at_s:g} s): {self.evidence}"


@dataclass(frozen=True, slots=True)
class _Rule:
    resource: Callable[[Sequence[Sample]], str]
    full: Callable[[Sample], bool]
    evidence: Callable[[Sequence[Sample]], str]


def first_to_saturate(samples: Sequence[Sample], *, cores: int = 2) -> Saturated | None:
    """The deepest cause that was full for at least a second and a half; None when nothing was."""
    for rule in _rules(cores):
        run = _first_run(samples, rule.full)
        if run:
            return Saturated(rule.resource(run), run[0].at_s, rule.evidence(run))
    return None


def all_saturated(samples: Sequence[Sample], *, cores: int = 2) -> list[Saturated]:
    """Everything that was full, deepest first: the queue seen from the bottom up."""
    runs = [(rule, _first_run(samples, rule.full)) for rule in _rules(cores)]
    return [Saturated(rule.resource(run), run[0].at_s, rule.evidence(run)) for rule, run in runs if run]


def _first_run(samples: Sequence[Sample], full: Callable[[Sample], bool]) -> list[Sample]:
    """The first stretch that is long enough; one sample that was not full does not end it."""
    run: list[Sample] = []
    misses = 0
    for sample in samples:
        if full(sample):
            run.append(sample)
            misses = 0
        elif run and misses == 0:
            misses += 1
        else:
            if len(run) >= _SUSTAINED:
                return run
            run, misses = [], 0
    return run if len(run) >= _SUSTAINED else []


def _rules(cores: int) -> list[_Rule]:
    """From the bottom up."""
    return [
        _Rule(lambda _: "generator CPU", lambda s: s.get("cpu_generator") >= _BUSY_CORE, _cpu_evidence),
        _Rule(lambda r: f"PostgreSQL reading {_scanned(r)[0]} without an index", _scans, _scan_evidence),
        _Rule(lambda _: "PostgreSQL locks", lambda s: s.get("pg_locked") >= _LOCKED, _lock_evidence),
        _Rule(lambda _: "the API's event loop, blocked in a handler", _blocked, _blocked_evidence),
        _Rule(lambda _: "PostgreSQL CPU", lambda s: s.get("cpu_postgres") >= max(_BUSY_CORE * cores / 2, s.get("cpu_api")), _cpu_evidence),
        _Rule(lambda _: "API CPU", _busy_api, _cpu_evidence),
        _Rule(lambda _: "database pool wait", _pool, _pool_evidence),
        _Rule(lambda _: "admission slots (time spent waiting in handlers)", lambda s: s.get("slots_share") >= _FULL, _slots_evidence),
        _Rule(lambda _: "CPU of the machine", lambda s: s.get("cpu_machine") >= _BUSY_MACHINE * cores, _cpu_evidence),
        _Rule(lambda r: f"consumer group {_slowest(r)}", lambda s: s.get("lag") >= _LAG, _lag_evidence),
        _Rule(lambda _: "relay", lambda s: s.get("outbox_age_s") >= _OUTBOX_AGE_S, _relay_evidence),
    ]


def _scans(sample: Sample) -> bool:
    rows = max(sample.rows_read.values(), default=0.0)
    return rows >= _ROWS_READ and rows >= _ROWS_A_REQUEST * sample.get("answered")


def _scanned(run: Sequence[Sample]) -> tuple[str, float]:
    sums: dict[str, float] = {}
    for sample in run:
        for table, rows in sample.rows_read.items():
            sums[table] = sums.get(table, 0.0) + rows / len(run)
    return max(sums.items(), key=lambda item: item[1])


def _scan_evidence(run: Sequence[Sample]) -> str:
    table, rows = _scanned(run)
    return (
        f"it read {rows:,.0f} rows of `{table}` a second for {_mean(run, 'answered'):.0f} answers a second; "
        f"PostgreSQL used {_mean(run, 'cpu_postgres'):.2f} cores"
    )


def _blocked(sample: Sample) -> bool:
    """The loop answers late although its process has CPU to spare: something in it sleeps or waits synchronously."""
    busy = sample.get("cpu_api") / max(1.0, sample.get("api_processes", 1)) + sample.get("starved_api")
    late = sample.get("loop_ms") >= _LATE_MS or (sample.get("loop_lag_ms") >= _LATE_MS and sample.get("loop_ms") >= _LATE_MS / 3)
    return late and busy < _IDLE


def _blocked_evidence(run: Sequence[Sample]) -> str:
    return (
        f"its health port answered {_mean(run, 'loop_ms'):.0f} ms later than the other processes' while it used only "
        f"{_mean(run, 'cpu_api'):.2f} cores: a handler sleeps or waits synchronously"
    )


def _busy_api(sample: Sample) -> bool:
    """Each of its processes has one loop, so one core is all it can use; ready and waiting for a core counts as busy.

    Not when somebody else has the cores: that is the machine's state, not the service's.
    """
    used = sample.get("cpu_api") / max(1.0, sample.get("api_processes", 1))
    return used >= _BUSY_CORE or (used + sample.get("starved_api") >= _BUSY_CORE and sample.get("cpu_foreign") < _MUCH_FOREIGN)


def _pool(sample: Sample) -> bool:
    return sample.get("pool_share") >= 0.99 and (sample.get("pool_waits") > 0 or sample.get("shed") > 0)


def _pool_evidence(run: Sequence[Sample]) -> str:
    return (
        f"{_mean(run, 'pool_share') * run[0].get('pool_size'):.0f} of {run[0].get('pool_size'):.0f} connections in use, wait p99 ≤ "
        f"{max(s.get('pool_wait_ms') for s in run):.0f} ms, while PostgreSQL used {_mean(run, 'cpu_postgres'):.2f} cores "
        f"and worked on {_mean(run, 'pg_active'):.1f} statements at a time"
    )


def _slots_evidence(run: Sequence[Sample]) -> str:
    taken, took_ms = _mean(run, "slots_share"), _mean(run, "handler_ms")
    return f"{taken:.0%} of the slots taken, {took_ms:.0f} ms a request, API {_mean(run, 'cpu_api'):.2f} cores, pool {_mean(run, 'pool_share'):.0%}"


def _lock_evidence(run: Sequence[Sample]) -> str:
    return f"{_mean(run, 'pg_locked'):.1f} sessions waited for a lock at a time"


def _lag_evidence(run: Sequence[Sample]) -> str:
    return f"its lag reached {max(s.get('lag') for s in run):.0f} records, workers used {_mean(run, 'cpu_worker'):.2f} cores"


def _relay_evidence(run: Sequence[Sample]) -> str:
    return f"the oldest event waited {max(s.get('outbox_age_s') for s in run):.1f} s for Kafka"


def _cpu_evidence(run: Sequence[Sample]) -> str:
    roles = {
        "api": "API",
        "postgres": "PostgreSQL",
        "redis": "Redis",
        "kafka": "broker",
        "relay": "relay",
        "worker": "workers",
        "generator": "generator",
    }
    shares = [f"{label} {_mean(run, f'cpu_{role}'):.2f}" for role, label in roles.items() if _mean(run, f"cpu_{role}") >= 0.05]
    others = _mean(run, "cpu_foreign")
    starved = f"; the API waited {_mean(run, 'starved_api'):.0%} of the time for a core" if _mean(run, "starved_api") >= 0.1 else ""
    foreign = f"; other programs took {others:.0%} of the machine" if others >= 0.15 else ""
    return f"cores used: {', '.join(shares) or 'none'}; {_mean(run, 'cpu_machine'):.2f} of the machine's in all{starved}{foreign}"


def _slowest(run: Sequence[Sample]) -> str:
    lags = {key.removeprefix("lag_"): run[-1].get(key) for key in run[-1].values if key.startswith("lag_")}
    return max(lags, key=lambda name: lags[name], default="?")


def _mean(run: Sequence[Sample], name: str) -> float:
    return sum(sample.get(name) for sample in run) / len(run)
