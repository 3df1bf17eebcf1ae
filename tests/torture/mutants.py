"""The judge judged: bugs planted into a copy of the code, each to be found by the torture with one of five seeds.

A patch in `mutants/` is a bug; its first lines say which, its line `Found by:` which promises should complain. A run that merely
breaks something else counts as survived: what matters is that the right promise is broken. Stops at the first kill of each.
`python -m tests.torture.mutants [NAME …]`; exit 0: all killed, and their table is in docs/measured/mutants.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from service.dev.children import StackError
from service.dev.state import ROOT
from tests.torture.run import Asked, run, tell

PATCHES: Final = Path(__file__).parent / "mutants"
MEASURED: Final = ROOT / "docs" / "measured" / "mutants.json"
SEEDS: Final = (1, 2, 3, 4, 5)
SECONDS: Final = 25.0
_FOUND_BY: Final = "Found by:"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug."""

    name: str
    text: str
    promises: tuple[str, ...]
    patch: Path


@dataclass(slots=True)
class Fate:
    """What became of it. `seed` 0: it survived."""

    name: str
    text: str
    expected: list[str]
    seed: int = 0
    broken: list[str] | None = None
    first: str = ""
    runs: int = 0


def mutants() -> list[Mutant]:
    """All of them, by name."""
    return [_read(path) for path in sorted(PATCHES.glob("*.patch"))]


def _read(path: Path) -> Mutant:
    head = path.read_text(encoding="utf-8").partition("\n--- ")[0].splitlines()
    promises = next(line.removeprefix(_FOUND_BY) for line in head if line.startswith(_FOUND_BY))
    text = " ".join(line for line in head if line and not line.startswith(_FOUND_BY))
    return Mutant(path.stem, text, tuple(name.strip() for name in promises.split(",")), path)


@contextmanager
def planted(mutant: Mutant) -> Iterator[Path]:
    """A copy of service and workers with the bug in it."""
    with tempfile.TemporaryDirectory(prefix="plumbline-mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for package in ("service", "workers"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(["git", "apply", str(mutant.patch)], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{mutant.patch.name} does not fit the code any more: {done.stderr.strip()}; plant that bug anew")
        yield folder


async def hunt(mutant: Mutant, out: Path) -> Fate:
    """Seed after seed until the right promise is broken."""
    fate = Fate(mutant.name, mutant.text, list(mutant.promises), broken=[])
    with planted(mutant) as source:
        for seed in SEEDS:
            tell(f"{mutant.name}, seed {seed}: {mutant.text}")
            fate.runs += 1
            try:
                outcome = await run(Asked(seed, SECONDS, "memory", out / f"{mutant.name}-{seed}", source=source, require=(), workers=1))
            except StackError as error:
                tell(f"   did not start: {error}")
                continue
            broken = [name for name, verdict in outcome.verdicts.items() if verdict.violations]
            tell(f"   broken: {', '.join(broken) or 'nothing'}")
            if set(broken) & set(mutant.promises):
                found = next(name for name in mutant.promises if name in broken)
                fate.seed, fate.broken = seed, broken
                fate.first = f"{found}: {outcome.verdicts[found].violations[0].detail}"
                return fate
    return fate


def main() -> int:
    """Hunt those that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to hunt (default: all)")
    asked = parser.parse_args()
    chosen = [mutant for mutant in mutants() if not asked.names or mutant.name in asked.names]
    out = ROOT / "build" / "torture" / f"mutants-{time.strftime('%H%M%S')}"
    fates = {fate["name"]: fate for fate in json.loads(MEASURED.read_text())} if MEASURED.exists() else {}
    survived = []
    for mutant in chosen:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            fate = runner.run(hunt(mutant, out))
        fates[mutant.name] = asdict(fate)
        survived += [] if fate.seed else [mutant.name]
        MEASURED.write_text(json.dumps([fates[name] for name in sorted(fates)], indent=1) + "\n")
        tell(f"{mutant.name}: {f'killed by seed {fate.seed}, {fate.first}' if fate.seed else 'SURVIVED'}")
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed{', survived: ' + ', '.join(survived) if survived else ''}; runs in {out}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
