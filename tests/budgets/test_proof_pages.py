"""docs/cache.md, docs/overload.md and their pictures are what the committed measurements say."""

from __future__ import annotations

import pytest

from tests.proofs.pages import ROOT, pages


@pytest.mark.parametrize("path", pages())
def test_the_page_is_rendered_from_what_was_measured(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == pages()[path], "run: python -m tests.proofs pages"
