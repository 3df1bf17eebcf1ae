"""A change of any rendered object shows up in review as a change of tests/helm/golden."""

from __future__ import annotations

import difflib

import pytest
from golden import ENVIRONMENTS, FOLDER, text_of


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_rendered_as_reviewed(environment: str) -> None:
    kept = (FOLDER / f"{environment}.yaml").read_text(encoding="utf-8")
    made = text_of(environment)
    changes = list(difflib.unified_diff(kept.splitlines(), made.splitlines(), "golden", "rendered", lineterm="", n=2))
    assert not changes, "wanted? build/verify/venv/bin/python tests/helm/golden.py --write\n" + "\n".join(changes[:60])
