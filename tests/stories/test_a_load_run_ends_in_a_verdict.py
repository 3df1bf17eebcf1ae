"""A load run against a running stack: offered, answered, drained, read back, judged, reported (the other verdicts: tests/load)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.load_runs import load

pytestmark = pytest.mark.alone  # it measures


def test_all_is_well_is_0_and_everything_is_reported(shop_home: Path, tmp_path: Path) -> None:
    code, text, said = load(shop_home, tmp_path / "run", "--mix", "buy")
    assert code == 0, text
    assert "verdict: OK (exit 0)" in text
    assert "offered" in text, "progress while it runs"
    asked = {check["name"] for check in said["checks"] if check["kind"] == "invariant"}
    assert {"I2", "G1", "G2", "W1", "W2", "W3", "G6", "ended", "dead letters"} <= asked
    assert said["truth"]["placed"] == said["routes"]["POST /v1/orders"]["requests"] == said["dispatch"]["offered"] == 40
    assert said["host"]["cores"] >= 1
    assert said["commit"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<svg") >= 8
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "self-contained: it asks nobody for anything"
