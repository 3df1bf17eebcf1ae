"""What the Dockerfile promises, read from its text; `verify.py image` also builds and runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) with continuations joined and comments dropped."""
    lines = "\n".join(line for line in SOURCE.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(m[1], m[2].strip()) for m in re.finditer(r"^([A-Z]+)\s+(.*)$", joined, re.MULTILINE)]


def runtime() -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    every = instructions()
    return every[max(i for i, (name, _) in enumerate(every) if name == "FROM") :]


def values(name: str) -> list[str]:
    return [rest for found, rest in runtime() if found == name]


def test_both_stages_use_the_replaceable_base() -> None:
    assert ("ARG", "PYTHON_IMAGE=python:3.13-slim-trixie") in instructions()
    assert [rest for name, rest in instructions() if name == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE} AS runtime"]


def test_no_frontend_must_be_pulled() -> None:
    assert not re.search(r"^#\s*syntax=", SOURCE, re.MULTILINE)
    assert "<<" not in SOURCE
    assert "--link" not in SOURCE


def test_dependencies_are_pinned_by_hash() -> None:
    assert "--require-hashes -r requirements/runtime.txt -r requirements/build.txt" in SOURCE
    assert "--no-build-isolation --no-index ." in SOURCE


def test_only_the_environment_reaches_the_runtime() -> None:
    assert values("COPY") == ["--from=build /app/.venv /app/.venv"]


def test_user_is_a_number() -> None:
    assert values("USER") == ["10001:10001"]
    order = [name for name, _ in runtime()]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN"), "RUN after USER would need rights"


def test_commands_are_exec_form() -> None:
    assert [json.loads(rest) for rest in values("ENTRYPOINT")] == [["plumbline"]]
    assert [json.loads(rest) for rest in values("CMD")] == [["serve"]]
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_the_health_check_needs_nothing_but_python() -> None:
    (check,) = values("HEALTHCHECK")
    command = json.loads(check.split("CMD", 1)[1])
    assert command[0] == "python"
    compile(command[2], "healthcheck", "exec")
    assert "/health/ready" in command[2]


@pytest.mark.parametrize("name", ["PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONFAULTHANDLER=1", "HOME=/tmp"])
def test_environment(name: str) -> None:
    assert name in " ".join(values("ENV")).split()


@pytest.mark.parametrize("label", ["source", "revision", "version", "created", "licenses"])
def test_labels(label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in values("LABEL")[0]


def test_no_installer_is_left() -> None:
    assert re.search(r"uninstall --quiet --yes setuptools .*\bpip\b", SOURCE)
    assert any("rm -rf /usr/local/bin/pip*" in rest for rest in values("RUN"))


def test_nothing_enters_the_build_unless_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert let_in == copied, "what is copied and what is let in must be the same"
    for path in let_in:
        assert (ROOT / path).exists(), path
