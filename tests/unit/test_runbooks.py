"""Every runbook has its parts in their order, and reads only metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import service.foundation.metrics  # noqa: F401 - defines them
import workers.signals  # noqa: F401 - defines the workers' own metrics

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
_ALERT_PARTS = ["Meaning", "Impact", "First five minutes", "Diagnosis", "Mitigate", "Verify", "Escalate", "Links"]
_HAND_PARTS = ["When", "Steps", "Verify", "Links"]
_NAME = re.compile(r"\borders_[a-z_]+[a-z]\b")


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md") if path.name != "README.md"))
def test_a_page_has_its_parts(page: str) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    parts = [part for part in re.findall(r"^## (.*)$", text, re.MULTILINE) if page.startswith("Orders") or part in _HAND_PARTS]
    assert parts == (_ALERT_PARTS if page.startswith("Orders") else _HAND_PARTS)
    assert "```bash" in text or not page.startswith("Orders")


def test_every_page_is_linked_and_names_metrics_that_exist() -> None:
    known = {name for found in REGISTRY._collector_to_names.values() for name in found}
    known |= {name.rsplit("_", 1)[0] for name in known if name.endswith(("_sum", "_total"))}
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    for path in PAGES.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        unknown = set(_NAME.findall(text)) - known
        assert not unknown, f"{path.name}: {unknown}"
        assert path.name.startswith("Orders") or path.name == "README.md" or f"({path.name})" in index, path.name
