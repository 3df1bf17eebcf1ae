"""What must hold and what is hoped for, in ratios of one interleaved run (absolute figures do not travel)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio's bounds. `better`: which side of the bound is good."""

    name: str
    text: str
    must: float
    goal: float
    better: Literal["lower", "higher"] = "lower"

    def met(self, value: float, bound: float) -> bool:
        """True if `value` is on the good side of `bound`."""
        return value <= bound if self.better == "lower" else value >= bound


GOALS: Final = (
    Goal("create_all_on", "POST order ÷ w0", 2.2, 1.3),
    Goal("get_cached_all_on", "GET order, cached ÷ p1", 1.6, 1.2),
    Goal("get_304", "GET order, 304 ÷ p1", 1.4, 1.0),
    Goal("list_20", "list of 20 ÷ raw list", 2.0, 1.4),
    Goal("orders_vs_pgbench", "orders/s ÷ pgbench", 0.35, 0.8, "higher"),
    Goal("relay_vs_raw", "relay events/s ÷ raw produce", 0.25, 0.7, "higher"),
    Goal("group_vs_sql", "inventory events/s ÷ its SQL one by one", 0.5, 3.0, "higher"),
    # 5.0 and 2.0 ms of a host whose w0 was 185 µs.
    Goal("saga_vs_w0", "CPU of one order, whole saga ÷ w0", 27.0, 10.8),
    Goal("commit_to_kafka_p50_ms", "commit → Kafka p50, ms", 30, 10),
    Goal("commit_to_kafka_p99_ms", "commit → Kafka p99, ms", 300, 100),
    Goal("placed_to_paid_p50_ms", "placed → paid p50 at half load, ms", 500, 150),
    Goal("api_rss_mib", "API process under load, MiB", 120, 90),
    Goal("start_s", "`serve`: process start to ready, s", 1.5, 0.7),
)

# A machine on which the same work varies more than this cannot say anything about a few per cent.
FLOOR_SPREAD_MAX: Final = 0.40
SELF_RATIO_MAX: Final = 0.08
