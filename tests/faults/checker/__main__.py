"""`python -m tests.faults.checker --home HOME --history FILE`: judge a running stack, or saved evidence.

Exit 0: all promises kept · 1: one is broken · 2: the run proves nothing, or the evidence cannot be read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from service.dev.children import StackError
from service.dev.state import read_stack
from tests.faults.checker.collect import collect
from tests.faults.checker.evidence import Evidence
from tests.faults.checker.report import exit_code, judge_all, render


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.checker", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--home", type=Path, help="state folder of a running stack")
    source.add_argument("--evidence", type=Path, help="evidence saved earlier")
    parser.add_argument("--history", type=Path, help="the clients' operations, one JSON object a line")
    parser.add_argument("--faults", type=Path, help="the fault log, one JSON object a line")
    parser.add_argument("--save", type=Path, help="write the evidence here")
    parser.add_argument("--expected-dead", default="", help="aggregates that were made to fail, comma-separated")
    parser.add_argument("--require", default="", help="promises that must have been exercised, comma-separated")
    return parser.parse_args()


def main() -> int:
    """Read, judge, print."""
    asked = _arguments()
    try:
        if asked.evidence:
            evidence = Evidence.from_json(json.loads(asked.evidence.read_text()))
        else:
            evidence = asyncio.run(collect(read_stack(asked.home), asked.home, history=asked.history, faults=asked.faults))
    except (OSError, StackError, TypeError, ValueError) as error:
        print(f"checker: the evidence cannot be read: {error}", file=sys.stderr)
        return 2
    evidence.expected_dead += [name for name in asked.expected_dead.split(",") if name]
    if asked.save:
        asked.save.write_text(json.dumps(evidence.to_json(), default=str))
    verdicts = judge_all(evidence)
    for line in render(evidence, verdicts):
        print(line)
    code, reason = exit_code(evidence, verdicts, [name for name in asked.require.split(",") if name])
    print(reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
