"""Tools and frameworks the benches need and the service does not: each set in an environment of its own under `build/`.

`requirements/NAME.txt` (pinned by hash) is installed once into `build/NAME`, and again when it changes.
"""

from __future__ import annotations

import hashlib
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from service.dev.state import ROOT


def installed(name: str, what: str, say: Callable[[str], None]) -> Path:
    """The environment's `bin` folder. Raises `BenchError` when it cannot be had; `what` is named to a person."""
    pins, home = ROOT / "requirements" / f"{name}.txt", ROOT / "build" / name
    stamp = home / f".stamp-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not stamp.exists():
        say(f"installing {what} into build/{name} (once)")
        venv.create(home, with_pip=True, clear=True)
        command = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{what} could not be installed: {done.stderr.strip()[-300:]}; is a package index reachable?")
        stamp.touch()
    return home / "bin"
