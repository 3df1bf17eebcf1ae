"""The pages about security are what the code and the tests say: attacks, access, and every id with a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import access, attacks

ROOT = Path(__file__).parents[2]


def test_the_attack_list_is_what_the_tests_try() -> None:
    assert attacks.PAGE.read_text(encoding="utf-8") == attacks.page(), "run: python -m tests.support.attacks"


def test_the_access_matrix_is_what_the_policies_say() -> None:
    assert access.PAGE.read_text(encoding="utf-8") == access.page(), "run: python -m tests.support.access"


def test_every_owasp_risk_and_every_asvs_row_names_its_tests() -> None:
    """That each named test exists is checked for all pages by `test_docs.py`."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| (API\d+|\d+\.\d+\.\d+)", line)]
    risks = [row[0] for row in rows if row[0].startswith("API")]
    assert risks == [f"API{number}" for number in range(1, 11)]
    assert len(rows) - len(risks) >= 30, "the ASVS table shrank"
    assert [row[0] for row in rows if not re.search(r"`tests/[\w/]+\.py(::\w+)?`", row[-1])] == []
    ids = [name for row in rows for name in re.findall(r"\d+\.\d+\.\d+", row[0])]
    assert len(set(ids)) == len(ids), "an id twice"
