"""The cache over real processes: no key stays stale however writes, reads, fills and events meet, and a hot key costs one load.

`python -m tests.proofs cache` runs the same and writes docs/cache.md.
"""

from __future__ import annotations

import os

import pytest

from service.settings import Settings
from tests.proofs.race import run_race
from tests.proofs.stampede import CALLERS, PROCESSES, run_stampede
from tests.support.servers import Servers

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(("keys", "writes"), [pytest.param(50, 5, id="small"), pytest.param(500, 10, id="full", marks=pytest.mark.slow)])
async def test_no_key_stays_stale_and_nobody_misses_his_own_write(servers: Servers, settings: Settings, keys: int, writes: int) -> None:
    outcome = await run_race(settings, os.environ, "guarded", keys=keys, writes=writes, processes=4)
    assert outcome.updates == keys * writes * 4
    assert min(outcome.silent, outcome.hits, outcome.cached) > 0, "the race did not exercise what it is for"
    assert (outcome.stale, outcome.backwards) == (0, 0)


@pytest.mark.slow
async def test_the_same_race_leaves_stale_keys_behind_a_cache_that_deletes(servers: Servers, settings: Settings) -> None:
    outcome = await run_race(settings, os.environ, "deleting", keys=500, writes=10, processes=4)
    assert outcome.stale + outcome.backwards > 0, "the race no longer finds what deletes leave behind"


async def test_the_expiry_of_a_hot_key_costs_one_load_and_a_cold_key_one_a_process(servers: Servers, settings: Settings) -> None:
    hot = await run_stampede(settings, os.environ, "ours, copy 60 s old")
    assert hot.loads == 1, f"{PROCESSES} × {CALLERS} callers made {hot.loads} loads"
    cold = await run_stampede(settings, os.environ, "ours, nothing cached")
    assert 1 <= cold.loads <= PROCESSES


async def test_without_protection_the_same_crowd_loads_again_and_again(servers: Servers, settings: Settings) -> None:
    assert (await run_stampede(settings, os.environ, "no protection")).loads > PROCESSES
