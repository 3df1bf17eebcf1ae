"""What the torture, the matrix and their preparations found in the product; each has a test of its own."""

from __future__ import annotations

from typing import Final

FOUND: Final = (
    "A reset between worker and broker could end the worker: uvloop's RuntimeError killed aiokafka's fetch loop. `tests/unit/test_kafka_connection.py`",
    "What ended a process was a bare traceback between log lines that are JSON objects (X2). `tests/unit/test_process_end.py`",
    "Redis gone at the wrong moment was answered 500, and cost the cache group dead letters: the same RuntimeError, out of redis-py. `tests/unit/test_redis_closed_transport.py`",
    "Events of one order in the order 1, 3, 2 (O2): a transaction that committed late was below the relay's floor, its successor above it. `tests/integration/test_relay.py`",
    "Only the doctor noticed a PostgreSQL with `fsync` or `synchronous_commit` off; now start-up refuses it. `tests/integration/test_db.py`",
    "Workers had as little patience with Redis as an answer has, 50 ms: on a machine with no time the cache group paused over and over, and stale copies stayed (C1). `tests/integration/test_a_slow_redis_hears_every_event.py`",
)
