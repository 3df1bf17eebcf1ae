"""How large the code is: code lines by module and function (not blank, not comment, not docstring; SQL and Lua count)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Function:
    """A function and its code lines."""

    name: str
    lines: int


def modules(*folders: str) -> list[Path]:
    """Python, SQL and Lua files below the folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sql", ".lua"})


def code_lines(path: Path) -> int:
    """Code lines of a file."""
    if path.suffix != ".py":
        return written_lines(path)
    return len(_code_line_numbers(path))


def written_lines(path: Path) -> int:
    """Lines of a file that are neither blank nor comment: docstrings count, and nothing is parsed."""
    return sum(1 for line in path.read_text().splitlines() if (text := line.strip()) and not text.startswith(("#", "--")))


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file; every budget looks at the same one."""
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[Function]:
    """Every function of a Python file, nested ones too."""
    code = _code_line_numbers(path)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            yield Function(f"{path.relative_to(ROOT)}:{node.name}", sum(1 for number in span if number in code))


@cache
def _code_line_numbers(path: Path) -> frozenset[int]:
    docstrings = {
        number
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False) is not None
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = enumerate(path.read_text().splitlines(), start=1)
    return frozenset(number for number, line in lines if (text := line.strip()) and not text.startswith("#")) - docstrings
