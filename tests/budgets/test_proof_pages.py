"""docs/cache.md, docs/overload.md, docs/torture.md, docs/failure-matrix.md and their like are what the committed measurements say."""

from __future__ import annotations

import pytest

from tests.proofs.pages import ROOT, pages
from tests.torture import pages as torture


@pytest.mark.parametrize("path", pages())
def test_the_page_is_rendered_from_what_was_measured(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == pages()[path], "run: python -m tests.proofs pages"


@pytest.mark.parametrize("path", torture.pages())
def test_what_the_torture_left_is_rendered_too(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == torture.pages()[path], "run: python -m tests.torture.pages"
