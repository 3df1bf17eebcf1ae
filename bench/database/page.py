"""docs/database.md and its pictures, made from docs/measured/database alone. Test: tests/budgets/test_database_page.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bench.database import pictures
from bench.database.findings import Chapter, Finding, Ratio, Shown, Table, measured, recall
from bench.database.pictures import number_text
from service.dev.state import ROOT

PAGE: Final = "docs/database.md"
_IMAGES: Final = "docs/images/database"
_HEAD: Final = """# The database chapter: choices of the schema as experiments

*Written by `make bench-database`; edit the experiments in `bench/database`, not this page.*

Each section asks one question of a real PostgreSQL and answers it three ways: a **witness** that is the same on any machine (buffers, rows, statements, bytes), a **ratio** of times measured side by side in interleaved rounds (median and quartiles; processor time where that is the question, else the clock), and the plan as `EXPLAIN (ANALYZE, BUFFERS)` printed it. Absolute times are left out: they belong to one machine on one day.

```sh
make bench-database                      # all but the two long ones, at 100,000 orders
make bench-database ARGS="depth pool"    # some sections; `retention` takes eleven minutes, `timeline` four
```

The shop is `plumbline seed --orders N`: few customers buy most, few products sell most, most orders are recent. Where a section writes, it writes into a copy. The plans the service depends on are asserted by tests: [the last section](#plans-that-are-held).
"""


def render(chapters: Sequence[Chapter], closing: str) -> dict[str, str]:
    """Path → content of the page and every picture; a section that was never measured is left out."""
    chapters = [chapter for chapter in chapters if measured(chapter.name)]
    made: dict[str, str] = {}
    parts = [_HEAD, _contents(chapters)]
    for chapter in chapters:
        finding = recall(chapter.name)
        parts.append(_section(chapter, finding, made))
    made[PAGE] = "\n".join([*parts, closing])
    return made


def write(chapters: Sequence[Chapter], closing: str) -> list[str]:
    """Write them; answers the paths."""
    made = render(chapters, closing)
    for path, content in made.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(content, encoding="utf-8")
    return list(made)


def _contents(chapters: Sequence[Chapter]) -> str:
    rows = "\n".join(f"| [{chapter.title}](#{_anchor(chapter.title)}) | {chapter.question} |" for chapter in chapters)
    return f"| section | question |\n|---|---|\n{rows}\n"


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower() if c.isalnum() or c in " -_").replace(" ", "-")


def _section(chapter: Chapter, finding: Finding, made: dict[str, str]) -> str:
    drawn = [(data.title, pictures.lines(data)) for data in finding.lines] + [(data.title, pictures.bars(data)) for data in finding.bars]
    parts = [
        f"## {chapter.title}\n",
        f"**{chapter.question}** (`bench/database/{chapter.name}.py`)\n",
        f"{chapter.reading.format(**finding.facts)}\n",
    ]
    for number, (title, svg) in enumerate(drawn):
        name = f"{chapter.name}{f'-{number + 1}' if number else ''}.svg"
        made[f"{_IMAGES}/{name}"] = svg
        parts.append(f"![{title}](images/database/{name})\n")
    parts += [_table(table) for table in finding.witness]
    if finding.ratios:
        parts.append(_ratios(finding.ratios))
    parts += [_shown(shown) for shown in finding.shown]
    parts.append(f"**When I would choose the other.** {chapter.other.format(**finding.facts)}\n")
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = f"| {' | '.join(table.head)} |\n|{'---|' * len(table.head)}"
    return "\n".join([head, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows)]) + "\n"


def _cell(value: Any) -> str:
    return number_text(value).replace("|", "\\|")


def _ratios(ratios: Sequence[Ratio]) -> str:
    rows = "\n".join(f"| {r.name} | **× {r.median:.2f}** | {r.low:.2f} to {r.high:.2f} | {r.rounds} |" for r in ratios)
    return f"| ratio | median | quartiles | rounds |\n|---|---|---|---|\n{rows}\n"


def _shown(shown: Shown) -> str:
    plan = f"\n```text\n{shown.plan}\n```\n" if shown.plan else ""
    return f"<details><summary>SQL{' and plan' if plan else ''}: {shown.title}</summary>\n\n```sql\n{shown.sql.strip()}\n```\n{plan}\n</details>\n"
