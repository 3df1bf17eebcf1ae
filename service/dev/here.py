"""The stack that runs here lends its settings to a tool whose shell has none.

`plumbline doctor` and `plumbline dlq` work next to `plumbline up` without sourcing its `env` file; what the
environment says wins. Test: `tests/stories/test_the_doctor_finds_what_is_wrong.py`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from service.dev.state import Lock


def adopt_stack() -> Path | None:
    """Put the running stack's settings into the environment; answers its folder, None when nothing was adopted."""
    home = Path(os.environ.get("PLUMBLINE_HOME", ".plumbline")).absolute()
    if "DATABASE_URL" in os.environ or Lock(home).holder() is None or not (home / "env").exists():
        return None
    for line in (home / "env").read_text().splitlines():
        if line.startswith("export ") and "=" in line:
            [assignment] = shlex.split(line.removeprefix("export "))
            name, _, value = assignment.partition("=")
            os.environ.setdefault(name, value)
    return home
