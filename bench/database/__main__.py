"""`python -m bench.database [names]`: run the experiments, then write docs/database.md and its pictures from what was found."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.database.chapters import CHAPTERS, CLOSING, LONG
from bench.database.findings import Chapter, keep
from bench.database.lab import open_lab
from bench.database.page import write
from bench.errors import BenchError
from bench.progress import teller
from service.dev.children import StackError


async def run(chapters: Sequence[Chapter], orders: int) -> None:
    """All in one server; what one found is kept even if a later one fails."""
    say = teller()

    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as folder:
        say("starting PostgreSQL")
        async with open_lab(Path(folder), orders=orders, say=say) as lab:
            for number, chapter in enumerate(chapters, start=1):
                say(f"{number} of {len(chapters)}: {chapter.title}")
                keep(chapter.name, await chapter.run(lab))
    say(f"{len(chapters)} sections measured")


def main() -> int:
    """Exit 0: the page is written. 2: an experiment cannot run here; the sentence says why."""
    names = [chapter.name for chapter in CHAPTERS]
    parser = argparse.ArgumentParser(prog="python -m bench.database", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names)}; default: all but {', '.join(LONG)}; `page`: draw only")
    parser.add_argument("--orders", type=int, default=100_000)
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in [*names, "page"]]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [chapter for chapter in CHAPTERS if chapter.name in asked.names or (not asked.names and chapter.name not in LONG)]
    try:
        if chosen:
            asyncio.run(run(chosen, asked.orders))
        written = write(CHAPTERS, CLOSING)
    except (BenchError, StackError) as error:
        print(f"bench.database: {error}", file=sys.stderr)
        return 2
    print(f"written: {written[-1]} and {len(written) - 1} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
