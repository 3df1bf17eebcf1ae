"""Every failpoint, crashed and hung, on real processes: the order's story ends well and no promise is broken.

About two and a half minutes on two cores; `make test-faults` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.foundation.failpoints import NAMES
from tests.faults.sweep import Case, World, cases, run_case, swept_stack
from tests.support.servers import free_base_port


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("sweep")
    with swept_stack(home, free_base_port()) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
async def test_a_failpoint_breaks_no_promise(world: World, case: Case) -> None:
    result = await run_case(world, case)
    assert not result.problems, "\n".join(result.problems)


def test_every_point_is_swept() -> None:
    assert {case.point for case in cases()} | {"inside-migration"} == set(NAMES)
