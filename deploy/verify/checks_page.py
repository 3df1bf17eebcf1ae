#!/usr/bin/env python3
"""Writes docs/checks.md: what each target of verify.py last came to, and every mutant with the check that notices it.

From docs/measured/verify.json (`verify.py --record …`) and deploy-mutants.json (`mutants.py`). A target without figures and a
mutant without a verdict stand there as such. `--check` refuses a page not made of those and of the scripts. Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mutants
import verify

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "checks.md"
NOTICES = {
    "agree": "chart and Terraform name the same things", "chart": "chart tests", "ci": "workflow tests, zizmor",
    "collector": "pipeline tests", "consumer": "tests of the queue's consumer", "image": "hadolint, image and compose tests",
    "kubeconform": "kubeconform", "rules": "promtool, amtool, invariants",
}  # fmt: skip


def cell(text: str) -> str:
    """One line of code inside a table."""
    first = text.splitlines()[0] if text else ""
    more = " …" if len(text.splitlines()) > 1 or len(first) > 70 else ""
    return "`` " + first[:70].replace("|", "\\|") + more + " ``" if text else "nothing"


def target_row(name: str, told: dict[str, int] | None) -> str:
    if told is None:
        return f"| `{name}` | not run yet | | | |"
    return f"| `{name}` | {told['passed']} | {told['failed']} | {told['took_s']} | {told['cpu_s']} |"


def mutant_row(mutant: mutants.Mutant, killed: bool | None) -> str:
    by = NOTICES.get(mutant.judge) or f"`terraform test` of {mutant.judge}"
    noticed = "not judged yet" if killed is None else by if killed else "**nobody**"
    return f"| `{mutant.path}` | {cell(mutant.old.strip())} | {cell(mutant.new.strip())} | {noticed} |"


def page() -> str:
    figures = json.loads(verify.RECORD.read_text(encoding="utf-8"))
    told = mutants.recorded()
    verdicts = [(mutant, told.get(mutants.key(mutant))) for mutant in mutants.MUTANTS]
    killed, open_ones = sum(dead is True for _, dead in verdicts), sum(dead is None for _, dead in verdicts)
    lines = [
        "# What the deployment checks came to",
        "Written by `deploy/verify/checks_page.py` from the last recorded run of each target; a check compares page, figures and scripts.",
        "",
        "## Targets",
        (
            "`deploy/verify/verify.py --record <target>` on two shared cores: the clock says how busy they were, the processor time what the"
            " target costs (for `containers` and `cluster` without what runs inside the engine)."
        ),
        "",
        "| target | passed | failed | seconds | seconds of CPU |",
        "|---|---|---|---|---|",
        *(target_row(name, figures.get(name)) for name in verify.FULL if name != "mutants"),
        # Twenty minutes in one piece: often run judge by judge, so it is counted from the verdicts.
        f"| `mutants` | {killed} | {len(verdicts) - killed - open_ones} | one by one, below | |",
        "",
        "## Mutants",
        f"One thing is broken at a time in a copy of the tree: {killed} of {len(verdicts)} were noticed"
        + (f", {open_ones} were not judged yet" if open_ones else "") + " (`deploy/verify/mutants.py`).",
        "",
        "| where | what | becomes | noticed by |",
        "|---|---|---|---|",
        *(mutant_row(mutant, dead) for mutant, dead in verdicts),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not what figures and mutants make: run deploy/verify/checks_page.py")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
