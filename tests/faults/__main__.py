"""`python -m tests.faults`: the failpoint sweep as a table, then the checker's report; exit 1 if a promise is broken."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from service.dev.state import ROOT
from tests.faults.sweep import cases, run_case, swept_stack
from tests.support.servers import free_base_port

MEASURED = ROOT / "docs" / "measured" / "sweep.json"


async def main() -> int:
    """Run every case on one stack."""
    broken, rows = 0, []
    with tempfile.TemporaryDirectory(prefix="plumbline-sweep-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        print("starting a stack …", flush=True)
        with swept_stack(home, free_base_port()) as world:
            print(f"{'failpoint':<40} {'action':<6} {'story':<22} {'fired s':>8} {'quiet s':>8}  promises", flush=True)
            for case in cases():
                result = await run_case(world, case)
                broken += bool(result.problems)
                word = result.problems[0] if result.problems else "kept"
                rows.append(
                    {
                        "point": case.point,
                        "action": case.action,
                        "story": case.story,
                        "fired_s": result.fired_s,
                        "quiet_s": result.quiet_s,
                        "word": word,
                    }
                )
                print(f"{case.point:<40} {case.action:<6} {case.story:<22} {result.fired_s:>8.1f} {result.quiet_s:>8.1f}  {word}", flush=True)
            command = ["-m", "tests.faults.checker", "--home", str(home), "--history", str(world.history.path)]
            checker = await asyncio.create_subprocess_exec(sys.executable, *command, "--expected-dead", ",".join(world.expected_dead))
            code = await checker.wait()
    MEASURED.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if broken or code else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
