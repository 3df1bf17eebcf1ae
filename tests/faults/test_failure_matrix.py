"""One dependency after another is hurt on a running stack; every column of its row must be as docs/failure-matrix.md says (two minutes)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.matrix import ROWS, Row, Watcher, complaints
from tests.torture.rig import running_rig

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module")
async def watcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watcher]:
    home: Path = tmp_path_factory.mktemp("matrix")
    async with running_rig(home, kafka="memory", seed=0, api=1, workers=1, settings={"APP_PROFILE": "load"}) as rig:
        await rig.dial(decline_rate=0.0)
        yield Watcher(rig)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_row_is_as_it_says(watcher: Watcher, row: Row) -> None:
    assert complaints(row, await watcher.look(row)) == []
