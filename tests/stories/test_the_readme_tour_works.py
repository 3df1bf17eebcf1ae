"""Promise: what the README tells a newcomer to paste works, and shows what the README says it shows.

Runs the bash blocks of the README's tour, in order, in one shell, against a stack of its own. A line `# → text`
must occur in the output of the commands above it. When this fails, the first impression is a lie.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.dev.stack import running_stack
from tests.stories.test_the_demo_holds import the_limit_is_shown
from tests.support.servers import free_base_port
from tests.support.template import copy_template

pytestmark = pytest.mark.alone

README = Path(__file__).parents[2] / "README.md"
_EXPECT = "# → "
_MARK = "--end of step"
_TIMEOUT_S = 180


@dataclass
class Step:
    """Commands, and what their output must contain."""

    commands: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def tour_steps(text: str) -> list[Step]:
    """The tour's bash blocks, cut after each group of expectations."""
    tour = re.search(r"^## Tour\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert tour, "the README has no section '## Tour'"
    steps = [Step()]
    for block in re.findall(r"^```bash\n(.*?)^```", tour[1], re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith(_EXPECT):
                steps[-1].expected.append(line.removeprefix(_EXPECT).strip())
                continue
            if steps[-1].expected:
                steps.append(Step())
            steps[-1].commands.append(line)
    return steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a stack runs from `.plumbline`, as after `make up`."""
    made, port = tmp_path_factory.mktemp("tour"), free_base_port()
    copy_template(made / ".plumbline", port=port + 100)
    # The session's servers lift the limits for other tests; a newcomer's stack does not.
    with running_stack(made / ".plumbline", port, kafka="memory", env={"APP_PROFILE": "default", "APP_ENV": "development"}):
        yield made


def test_every_pasted_line_shows_what_the_readme_says(folder: Path) -> None:
    steps = tour_steps(README.read_text())
    assert len(steps) >= 15, "the tour lost its steps"
    script = "\n".join("\n".join([*step.commands, f'echo "{_MARK}"']) for step in steps)
    # A reader's shell: nothing of this test run's own settings.
    clean = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        ["bash", "-u"],
        input=script,
        cwd=folder,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    outputs = done.stdout.split(_MARK)
    for number, step in enumerate(steps):
        shown = outputs[number] if number < len(outputs) else "(never reached)"
        for expected in step.expected:
            assert expected.lower() in shown.lower(), (
                f"step {number + 1} does not show {expected!r}:\n" + "\n".join(step.commands) + f"\n---\n{shown}"
            )


def test_the_demo_shows_the_limit_on_a_stack_that_has_one(folder: Path) -> None:
    env = {"PLUMBLINE_HOME": str(folder / ".plumbline"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "service", "demo", "--scene", "7"]
    done = subprocess.run(command, cwd=README.parent, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    the_limit_is_shown(done.stdout)
