"""Unit tests: pure, no servers, a few seconds in all.

Hypothesis judges by what it finds, never by the wall clock: a busy machine must not turn a test red.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
