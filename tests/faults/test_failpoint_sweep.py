"""Every failpoint, crashed and hung, on real processes: the order's story ends well and no promise is broken.

About two and a half minutes on two cores; `make test-faults` runs it.
"""

from __future__ import annotations

import pytest

from service.foundation.failpoints import NAMES
from tests.faults.sweep import Case, World, cases, run_case


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
async def test_a_failpoint_breaks_no_promise(world: World, case: Case) -> None:
    result = await run_case(world, case)
    assert not result.problems, "\n".join(result.problems)


def test_every_point_is_swept() -> None:
    assert {case.point for case in cases()} | {"inside-migration"} == set(NAMES)
