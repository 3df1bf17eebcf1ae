"""The sections of docs/database.md, in its order."""

from __future__ import annotations

from typing import Final

from bench.database import (
    depth,
    durability,
    hot_row,
    identifiers,
    indexes,
    isolation,
    n_plus_one,
    pool,
    pooler,
    retention,
    round_trips,
    timeline,
)
from bench.database.claims import listed
from bench.database.findings import Chapter

CHAPTERS: Final[tuple[Chapter, ...]] = (
    indexes.CHAPTER, depth.CHAPTER, round_trips.CHAPTER, n_plus_one.CHAPTER, isolation.CHAPTER, hot_row.CHAPTER, identifiers.CHAPTER,
    pool.CHAPTER, durability.CHAPTER, pooler.CHAPTER, retention.CHAPTER, timeline.CHAPTER,
)  # fmt: skip
# Minutes each: measured when asked by name; the page has them once they were.
LONG: Final = ("retention", "timeline")
CLOSING: Final = f"""## Plans that are held

What this service asks most must not become slower as the tables grow. Each row is asserted with the service's own statement and its generic plan: the index is used, no table is read whole, and no more buffers are touched than stated, at 100,000 orders at every push (`tests/integration/test_query_plans.py::test_the_plan_that_is_claimed`) and at 1,000,000 in the slow lane (`tests/integration/test_plans_at_a_million.py`).

{listed()}
Three regressions are planted, and each fails a test that is named: a dropped index (`tests/integration/test_query_plans.py::test_a_dropped_index_is_noticed`), a page by OFFSET (`tests/integration/test_query_plans.py::test_a_page_by_offset_is_noticed`), a SELECT in a loop (`tests/integration/test_query_plans.py::test_a_select_in_a_loop_is_noticed`).
"""
