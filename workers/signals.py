"""Metrics that only worker groups have: what is stuck, and who stopped because of its own dead letters."""

from __future__ import annotations

from prometheus_client import Gauge

# 0 while the group is paused or has nothing in hand. Above a minute a record does not end: look at its log line.
stalled = Gauge("orders_consumer_stalled_seconds", "How long the record that holds back a partition has been in hand.", ["group"])
# Alert on 1: somebody has to look at the group's dead letters before they become more.
letters_breaker = Gauge("orders_dead_letter_breaker_open", "1 while the group stopped because it gave up on too much.", ["group"])
# Held back on purpose until due; not lag.
held_partitions = Gauge("orders_tier_held_partitions", "Retry partitions whose first record is not due yet.", ["group"])
