"""Seed after seed, and a table of what became of them in docs/measured/torture.json.

`python -m tests.torture.campaign 60 memory 1 2 3 …` (seconds, broker, seeds); exit 0: all held.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

import uvloop

from service.dev.children import StackError
from service.dev.state import ROOT
from tests.torture.__main__ import report
from tests.torture.run import Asked, run

MEASURED: Final = ROOT / "docs" / "measured" / "torture.json"
_WORDS: Final = {0: "held", 1: "VIOLATED", 2: "inconclusive"}


def main(seconds: float, broker: Any, seeds: list[int]) -> int:
    """Run them one after the other; a run of the same seed, length and broker replaces the one before."""
    worst = 0
    for seed in seeds:
        out = ROOT / "build" / "torture" / f"{broker}-{seed}-{seconds:g}s-{time.strftime('%H%M%S')}"
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(run(Asked(seed, seconds, broker, out)))
        except StackError as error:
            print(f"seed {seed}: {error}", file=sys.stderr)
            worst = max(worst, 2)
            continue
        report(outcome)
        worst = max(worst, outcome.code)
        checked = {name: verdict.checked for name, verdict in outcome.verdicts.items()}
        row = outcome.figures | {"verdict": _WORDS[outcome.code], "reason": outcome.reason, "checked": checked}
        rows = json.loads(MEASURED.read_text()) if MEASURED.exists() else []
        rows = [r for r in rows if (r["broker"], r["seconds"], r["seed"]) != (broker, seconds, seed)]
        rows = sorted([*rows, row], key=lambda r: (r["broker"], r["seconds"], r["seed"]))
        MEASURED.write_text(json.dumps(rows, indent=1) + "\n")
    return worst


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3:]]))
