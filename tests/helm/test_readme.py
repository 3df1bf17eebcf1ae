"""The README's table is values.yaml, completely."""

from __future__ import annotations

import sys

import pytest
from rendering import ROOT

sys.path.insert(0, str(ROOT / "deploy" / "verify"))
import chart_readme


def test_the_table_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert chart_readme.main(["--check"]) == 0, capsys.readouterr().err


def test_an_undescribed_value_is_named() -> None:
    source = "# -- Known.\na: 1\nb: 2\nc:\n  # -- Known.\n  d: 3\n  e: 4\n"
    described, bare = chart_readme.rows(source)
    assert [(r.path, r.default) for r in described] == [("a", "1"), ("c.d", "3")]
    assert bare == ["b", "c.e"]


def test_missing_markers_are_an_error() -> None:
    with pytest.raises(ValueError, match="markers"):
        chart_readme.rewritten("# nothing here", [])
