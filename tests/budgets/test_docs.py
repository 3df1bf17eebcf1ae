"""The documentation is true where a machine can tell: links, named files, commands, tests, and lists that mirror code.

What it cannot tell (whether a sentence is right) is for the reader. The README's tour is run by
tests/stories/test_the_readme_tour_works.py.
"""

from __future__ import annotations

import os
import re
import runpy
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from service.cli import app
from service.errors import problem_types

ROOT = Path(__file__).parents[2]
_SKIPPED = {".git", ".venv", ".plumbline", ".terraform", ".hypothesis", "build", "node_modules", "results", "__pycache__"}
_PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
_ADRS = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
_TOP_FOLDERS = "service|workers|tests|docs|deploy|infra|requirements|bench|loadtests|observability|scripts|\\.ci|\\.github"
_PATH = re.compile(rf"^(?:(?:{_TOP_FOLDERS})/[\w./*-]*|[\w.-]+\.(?:md|toml|http|yaml)|Makefile|Dockerfile|LICENSE)(?:::(\w+))?$")
_INVARIANTS = {
    f"{letter}{number}" for letter, last in {"I": 4, "L": 5, "C": 5, "O": 5, "W": 5, "G": 6, "H": 4}.items() for number in range(1, last + 1)
}
_TOPICS = (
    "API design", "Security", "Schema, indexes, queries, transactions", "Caching", "Queues, retries, dead letters", "Rate limiting",
    "Idempotency", "Observability", "Load balancing and scaling", "Kubernetes", "Terraform and AWS", "CI/CD", "Memory, GC, concurrency",
    "Throughput and peaks", "High availability", "Trade-offs",
)  # fmt: skip


@cache
def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", _text(page), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _rows(page: str, heading: str | None = None) -> list[list[str]]:
    """Cells of the page's table rows (below a heading), without header and rule."""
    text = _text(page)
    if heading is not None:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


@pytest.mark.parametrize("page", _PAGES)
def test_every_link_resolves(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in _anchors(str(file.resolve().relative_to(ROOT)))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", _PAGES)
def test_every_named_file_and_test_exists(page: str) -> None:
    missing = []
    for name in re.findall(r"`([^`\n]+)`", _prose(page)):
        match = _PATH.match(name)
        if match is None:
            continue
        path = name.partition("::")[0]
        found = list(ROOT.glob(path.rstrip("/")))
        if not found or (match[1] and f"def {match[1]}(" not in found[0].read_text(encoding="utf-8")):
            missing.append(name)
    assert missing == []


@cache
def _commands() -> frozenset[tuple[str, ...]]:
    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*words, name))

    root = typer.main.get_command(app)
    assert isinstance(root, click.Command) or hasattr(root, "commands")
    return frozenset(walk(root, ()))


@pytest.mark.parametrize("page", _PAGES)
def test_every_named_command_exists(page: str) -> None:
    known, groups = _commands(), {words[:-1] for words in _commands() if len(words) > 1}
    targets = set(re.findall(r"^([a-z][a-z-]*):", _text("Makefile"), re.MULTILINE))
    code = "\n".join(re.findall(r"`([^`\n]+)`", _prose(page)) + re.findall(r"^```(?:sh|bash)\n(.*?)^```", _text(page), re.MULTILINE | re.DOTALL))
    wrong = [f"make {target}" for target in re.findall(r"(?:^|[ /])make ([a-z][a-z-]*)", code, re.MULTILINE) if target not in targets]
    for line in re.findall(r"(?:^|[ /(])plumbline ([a-z][a-z -]*)", code, re.MULTILINE):
        words = tuple(word for word in line.split() if not word.startswith("-"))
        depth = 2 if words[:1] in groups and len(words) > 1 else 1
        if words[:depth] not in known:
            wrong.append(f"plumbline {' '.join(words[:depth])}")
    wrong += [f"pytest {path}" for path in re.findall(r"pytest ([\w./-]+)", code) if not (ROOT / path).exists()]
    assert wrong == []


@pytest.mark.parametrize("name", _ADRS)
def test_a_decision_is_one_page_with_its_price(name: str) -> None:
    page = f"docs/adr/{name}"
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)
    assert _text(page).startswith(f"# {name[:4]} "), "the title begins with the number"
    assert len(_text(page).splitlines()) <= 60
    assert len(_text(page).split()) <= 600
    sections = re.findall(r"^## (.+)$", _text(page), re.MULTILINE)
    for needed in ("Decision", "Price", "When I would choose the other"):
        assert needed in sections
    assert any(title.startswith(("Why", "Context")) for title in sections)


def test_every_decision_the_code_names_is_written() -> None:
    written = {name[:4] for name in _ADRS}
    assert len(written) == len(_ADRS), "two decisions share a number"
    named = {
        (str(path.relative_to(ROOT)), number)
        for path in _files()
        if path.suffix in {".py", ".sql", ".lua", ".md", ".tf", ".yaml", ".toml"}
        for number in re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))
    }
    assert {entry for entry in named if entry[1] not in written} == set()
    assert len({number for _, number in named}) >= 8, "nothing was looked at"


def test_every_problem_is_explained() -> None:
    explained: dict[str, int] = {}
    status = 0
    for level, title in re.findall(r"^(##+) (.+)$", _text("docs/problems.md"), re.MULTILINE):
        if level == "##":
            status = int(title) if title.isdigit() else 0
        else:
            explained[title] = status
    assert explained == {slug: kind.status for slug, kind in problem_types().items()}
    for slug in explained:
        section = re.search(rf"^### {slug}\n(.+?)(?=^##|\Z)", _text("docs/problems.md"), re.MULTILINE | re.DOTALL)
        assert section, slug
        assert len(section[1].split()) >= 6, slug


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(_text("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["embedded"], *extras["load"], *extras["dev"]]
    names = {re.split(r"[<>=~! ;]", entry)[0] for entry in declared} - {"plumbline[embedded,load]"}
    reasons = {cells[0].strip("`"): cells[1] for cells in _rows("docs/dependencies.md")}
    assert reasons.keys() == names
    assert [name for name, reason in reasons.items() if len(reason.split()) < 3] == []


def test_the_tour_covers_every_topic() -> None:
    rows = _rows("docs/tour.md")
    assert [row[0] for row in rows] == list(_TOPICS)
    for topic, question, files, command, number in rows:
        assert question.endswith("?"), topic
        assert "`" in files, topic
        assert "`" in command, topic
        assert number, topic


def test_every_guarantee_is_shown_or_said_to_be_missing() -> None:
    shown = _rows("docs/guarantees.md", "Shown")
    waiting = {cells[0] for cells in _rows("docs/guarantees.md", "Not shown yet")}
    found = [name for row in shown for name in re.findall(r"\b[ILCOWGH]\d\b", row[0])]
    assert sorted([*found, *waiting]) == sorted(_INVARIANTS), "each invariant once: shown with a test, or waiting"
    for cells in shown:
        assert re.search(r"`(service|workers)/", cells[2]), f"{cells[0]} names no mechanism"
        assert re.search(r"`tests/[\w/]+\.py(::\w+)?`", cells[3]), f"{cells[0]} names no test"


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads(_text("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## (Unreleased|\[?{re.escape(version)})", _text("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("name", ["eks", "flow"])
def test_the_picture_is_what_its_script_draws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "docs" / "images" / f"{name}.py"
    monkeypatch.syspath_prepend(str(script.parent))
    draw = runpy.run_path(str(script))["draw"]
    assert script.with_suffix(".svg").read_text(encoding="utf-8") == draw(), f"run: python {script.relative_to(ROOT)}"


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder) / name for name in names if name not in _SKIPPED)  # in a work tree .git is a file


def test_no_machine_path_and_no_registry_host_is_written_down() -> None:
    # Spelt in parts, so that this page holds none of them itself.
    hosts = [
        ("pypi", "org"),
        ("npmjs", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("repo1", "maven", "org"),
    ]
    hosts += [("repo", "maven", "apache", "org"), ("deb", "debian", "org"), ("archive", "ubuntu", "com"), ("index", "crates", "io")]
    # An image's own cache folder is no machine's.
    paths = [r"(?<![\w.-])/" + name + "/" for name in ("work", r"root(?!/\.cache/pip)", "home/[a-z]+")]
    paths.append(r"python\Bhosted\.org")
    pattern = re.compile("|".join([*paths, *(re.escape(".".join(parts)) for parts in hosts)]))
    found = []
    for path in _files():
        if path.stat().st_size > 5_000_000 or path.is_symlink():
            continue
        text = path.read_bytes().decode("utf-8", "ignore")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []
