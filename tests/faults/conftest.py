"""One running stack for the tests that hurt it and heal it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.sweep import World, swept_stack
from tests.support.servers import free_base_port


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A stack with every failpoint armed and none firing."""
    home: Path = tmp_path_factory.mktemp("faults")
    with swept_stack(home, free_base_port()) as made:
        yield made
