"""The command line as a person types it: a table of contents nothing is cut from, and a refusal that names the word that is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.dev.state import ROOT

_COUNTED = """
import gc
from service import cli
cli._settings("counted")
before = gc.get_stats()
async def main():
    fresh = [[] for _ in range(5_000)]
    return gc.get_freeze_count(), gc.get_stats()[2]["collections"] - before[2]["collections"]
print(*cli._run(main()))
"""
# What is typed and set, and what the refusal must name; each of them once started something, or ended in a traceback.
REFUSED = [
    ("up --only api", {}, "--only"),
    ("up --api 0", {}, "--api"),
    ("up --workers 0", {}, "--workers"),
    ("up --kafka rabbit", {}, "--kafka"),
    ("up", {"HTTP_PORT": "web"}, "HTTP_PORT"),
    ("up", {"HTTP_PORT": "65500"}, "HTTP_PORT"),
    ("up", {"OPS_PORT": "-1"}, "OPS_PORT"),
    ("demo", {"HTTP_PORT": "web"}, "HTTP_PORT"),
    ("token --role king", {}, "--role"),
    ("token --ttl 7200", {}, "--ttl"),
    ("token --count 0", {}, "--count"),
    ("dlq list --status lost", {}, "--status"),
    ("dlq list --limit 0", {}, "--limit"),
    ("republish --rate 0 --unfinished", {}, "--rate"),
    ("republish", {}, "say either --since TIME or --unfinished"),
    ("republish --since 1h --unfinished", {}, "say either --since TIME or --unfinished"),
    ("upp", {}, "Did you mean 'up'?"),
]


@pytest.mark.parametrize(("typed", "env", "named"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_makes_no_sense_is_refused_by_name(typed: str, env: dict[str, str], named: str) -> None:
    done = CliRunner().invoke(app, typed.split(), env=env)
    assert (done.exit_code, named in done.output) == (2, True), done.output


def test_the_table_of_contents_has_chapters_and_every_line_is_whole() -> None:
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    chapters = re.findall(r"^(\w[\w ]+):$", said, re.MULTILINE)
    assert chapters == ["Options", "The embedded stack", "Servers", "Tools"]
    assert "..." not in said.partition("\n")[2], said
    listed = set(re.findall(r"^  ([a-z][a-z-]+)  +[A-Z]", said, re.MULTILINE))
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert listed == commands | {"topics", "dlq", "events"}


def test_what_was_imported_is_never_gone_through_again() -> None:
    """The collector rests while a command imports, and what that made is out of its sight before it begins."""
    done = subprocess.run([sys.executable, "-c", _COUNTED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    frozen, collected = map(int, done.stdout.split())
    assert frozen > 30_000, "it would go through all of that"
    assert collected == 0
