"""Waiting times between attempts. Pure; randomness is passed in, so tables test it.

Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): uniform in [0, min(cap, base·2^n)],
which spreads a crowd of clients best; `proportional` keeps a delay near its plan (retry tiers).
"""

from __future__ import annotations

import random
from collections.abc import Callable

Uniform = Callable[[float, float], float]


def full_jitter(attempt: int, *, base_s: float, cap_s: float, uniform: Uniform = random.uniform) -> float:
    """Seconds to wait before attempt `attempt` (0-based): uniform in [0, min(cap, base·2^attempt)]."""
    return uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 32)))


def equal_jitter(attempt: int, *, base_s: float, cap_s: float, uniform: Uniform = random.uniform) -> float:
    """As `full_jitter`, but never below half: for pauses that must not become a busy loop."""
    ceiling = min(cap_s, base_s * 2.0 ** min(attempt, 32))
    return uniform(ceiling / 2.0, ceiling)


def proportional(delay_s: float, *, spread: float, uniform: Uniform = random.uniform) -> float:
    """`delay_s` ± `spread` (0.2 = 20 %)."""
    return delay_s * uniform(1.0 - spread, 1.0 + spread)
