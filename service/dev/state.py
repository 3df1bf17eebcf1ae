"""The state folder of one embedded stack: its lock, `stack.json`, and the `env` file a shell sources.

The lock is the kernel's (`flock`), so a killed stack leaves none behind; a file of it that names a dead
process is reported and taken over. When this fails two stacks would share one data folder
(`tests/integration/test_embedded_servers.py`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from service.dev.children import StackError

ROOT: Final = Path(__file__).parents[2]
# What `reset` may delete: never the folder as a whole, since PLUMBLINE_HOME may point anywhere.
_DATA = ("postgres", "redis", "kafka", "kafka.properties", "stack.json", "env", "psp.jsonl", "notifications.jsonl")
_REST = ("logs", "issuer.pem", "up.lock")


def open_home(home: Path) -> Path:
    """Create the state folder; answers its absolute path. Raises `StackError` when it cannot be written."""
    home = home.absolute()
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        (home / "up.lock").open("a").close()
    except OSError as error:
        raise StackError(f"the state folder {home} cannot be written ({error.strerror}): set PLUMBLINE_HOME to a folder that can") from None
    return home


class Lock:
    """Held by the one supervisor of a state folder for as long as it lives."""

    def __init__(self, home: Path) -> None:
        self._path = home / "up.lock"
        self._file: IO[str] | None = None

    def take(self) -> int | None:
        """Take it; answers the process id of a predecessor that ended without saying so. Raises `StackError` when it is held."""
        file = self._path.open("a+")
        file.seek(0)
        holder = file.read().strip()
        if not _locked(file):
            file.close()
            cure = "stop it with `plumbline down`, or set PLUMBLINE_HOME and HTTP_PORT for a second one"
            raise StackError(f"a stack already runs from {self._path.parent} (pid {holder}): {cure}")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        return int(holder) if holder.isdigit() else None

    def release(self) -> None:
        """Say goodbye: an empty lock file is no stale one."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def holder(self) -> int | None:
        """The process id of the running supervisor; None when none runs."""
        if not self._path.exists():
            return None
        with self._path.open("r+") as file:
            text = "" if _locked(file) else file.read().strip()
        return int(text) if text.isdigit() else None


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_stack(home: Path, stack: Mapping[str, Any]) -> None:
    """Replace `stack.json` in one step; it holds the database password, so only the owner reads it."""
    _replace(home / "stack.json", json.dumps(stack, indent=2) + "\n")


def read_stack(home: Path) -> dict[str, Any]:
    """The parsed `stack.json`. Raises `StackError` when no stack runs from `home`."""
    try:
        parsed: dict[str, Any] = json.loads((home / "stack.json").read_text())
    except FileNotFoundError:
        raise StackError(f"no stack runs from {home}: start one with `plumbline up`") from None
    return parsed


def write_env(home: Path, values: Mapping[str, str]) -> None:
    """Write the file behind `. .plumbline/env`: settings, PATH, and two tokens made fresh each time it is sourced."""
    folder = Path(sys.executable).parent
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f'case ":$PATH:" in *:{shlex.quote(str(folder))}:*) ;; *) export PATH={shlex.quote(str(folder))}:"$PATH" ;; esac')
    if not (folder / "plumbline").exists():  # not installed: run from the work tree
        lines.append(f'plumbline() {{ PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m service "$@"; }}')
    for name, subject, role in (("TOKEN", "customer-1", "customer"), ("ADMIN", "admin-1", "admin")):
        lines.append(f"{name}=$(plumbline token --sub {subject} --role {role}) && export {name}")
    _replace(home / "env", "\n".join(["# Written by `plumbline up`; source it in a POSIX shell.", *lines, ""]))


def forget(home: Path) -> None:
    """Remove what describes a running stack."""
    for name in ("stack.json", "env"):
        (home / name).unlink(missing_ok=True)


def wipe(home: Path, *, data_only: bool = False) -> None:
    """Remove the stack's data in `home`; without `data_only` also logs and keys, and the folder itself when it is then empty."""
    for path in (home / name for name in (_DATA if data_only else _DATA + _REST)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if home.exists() and not any(home.iterdir()):
        home.rmdir()


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)
