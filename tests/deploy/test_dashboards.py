"""The committed dashboards keep the house rules; that they are what the script writes is checked beside this."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/helm/orders/files/dashboards"
BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
every_panel = pytest.mark.parametrize(("uid", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"])


def test_all_six_are_there() -> None:
    assert set(BOARDS) == {f"orders-{name}" for name in ("slo", "api", "async", "data", "business", "runtime")}
    for uid, board in BOARDS.items():
        assert board["uid"] == uid, "links depend on it"
        assert "__inputs" not in board, "provisioning does not fill inputs"
        assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
        assert board["annotations"]["list"][0]["name"] == "Releases"
        assert board["editable"] is False


@every_panel
def test_a_panel_says_what_it_shows(uid: str, panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"], f"{uid} / {panel['title']} has no unit"
    assert len(panel["description"]) > 10
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        for window in re.findall(r"rate\([^()]*\[([^\]]+)\]", target["expr"]):
            assert window == "$__rate_interval", target["expr"]
        assert not re.search(r"customer|principal|order_id|sku", target["expr"])
    for link in panel.get("links", []):
        assert (ROOT / link["url"]).exists(), link["url"]


def test_panels_lead_on() -> None:
    linked = [panel for _, panel in PANELS if panel.get("links")]
    assert len(linked) >= 30, "panels with an alert link its runbook"
    exemplars = [panel["title"] for _, panel in PANELS if any(target.get("exemplar") for target in panel["targets"])]
    assert "duration, p99 by route" in exemplars
    assert all({"Traces and logs", "Orders"} <= {link["title"] for link in board["links"]} for board in BOARDS.values())


def test_every_alert_s_board_exists() -> None:
    for path in (ROOT / "deploy/helm/orders/files/rules").glob("*.yaml"):
        for group in json.loads(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    assert rule["annotations"]["dashboard_url"].removeprefix("/d/") in BOARDS
