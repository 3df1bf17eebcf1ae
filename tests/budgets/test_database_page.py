"""docs/database.md and its pictures are what the committed measurements say, and every section has all it promises."""

from __future__ import annotations

import pytest

from bench.database.chapters import CHAPTERS, CLOSING, LONG
from bench.database.findings import Chapter, measured, recall
from bench.database.page import render
from tests.budgets.measure import ROOT

PAGES = render(CHAPTERS, CLOSING)
MEASURED = [chapter for chapter in CHAPTERS if measured(chapter.name)]


@pytest.mark.parametrize("path", PAGES)
def test_the_page_is_rendered_from_what_was_measured(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path], "run: python -m bench.database page"


@pytest.mark.parametrize("chapter", MEASURED, ids=lambda chapter: chapter.name)
def test_a_section_has_a_witness_a_statement_and_a_picture(chapter: Chapter) -> None:
    finding = recall(chapter.name)
    assert finding.witness
    assert all(table.rows for table in finding.witness)
    assert finding.shown
    assert finding.lines or finding.bars
    assert finding.ratios or chapter.name == "timeline", "a ratio measured side by side"
    for ratio in finding.ratios:
        assert ratio.low <= ratio.median <= ratio.high, ratio
        assert ratio.rounds >= 3, ratio


def test_only_the_long_sections_may_still_wait() -> None:
    assert {chapter.name for chapter in CHAPTERS} - {chapter.name for chapter in MEASURED} <= set(LONG)


def test_no_picture_is_left_over() -> None:
    drawn = {path.rpartition("/")[2] for path in PAGES if path.endswith(".svg")}
    assert {path.name for path in (ROOT / "docs/images/database").iterdir()} == drawn
