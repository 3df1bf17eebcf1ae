"""What is loaded: a stack of its own (fresh, with lifted limits), a running one by its folder, or a service elsewhere.

Only this machine may be loaded unless `--i-own` says that the other one is yours: a load test of a stranger is an attack.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil

from service.dev.children import StackError
from service.dev.roster import BrokerKind, Profile
from service.dev.stack import run_reset, running_stack
from service.dev.state import ROOT, read_stack

__all__ = ["ROOT", "Target", "TargetError", "Wanted", "open_target", "own_stack"]
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_OFFSET: Final = 300  # beside a running `plumbline up`
_OPS_OFFSET: Final = 60
_NICE: Final = 19
_AUTOGROUP_EVERY_S: Final = (0.11,) * 3  # the kernel takes ten such changes a second of anybody but root


class TargetError(Exception):
    """There is nothing to load, or it may not be loaded: one sentence with the cure."""


@dataclass(frozen=True, slots=True)
class Target:
    """`home` None: a service elsewhere, of which only HTTP is seen. `beside`: API processes that answer in place of the stack's own."""

    api: str
    home: Path | None = None
    tokens: Path | None = None
    i_own: bool = False
    profile: str = ""
    beside: tuple[Mapping[str, Any], ...] = ()

    @property
    def stack(self) -> dict[str, Any]:
        if self.home is None:
            raise TargetError("this needs a stack on this machine: leave --host out")
        return read_stack(self.home)

    def pids(self, role: str) -> list[int]:
        """Processes of a role."""
        return [process["pid"] for process in self.stack["processes"] if process["role"] == role]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line said."""

    host: str = ""
    home: Path | None = None
    tokens: Path | None = None
    i_own: bool = False
    api: int = 1
    workers: int = 1
    kafka: BrokerKind = "auto"


@contextmanager
def open_target(wanted: Wanted, *, profile: Profile = "load", env: Mapping[str, str] | None = None) -> Iterator[Target]:
    """What was asked for, ready. Raises `TargetError`, `StackError`."""
    if wanted.host:
        yield _elsewhere(wanted)
    elif wanted.home is not None:
        stack = read_stack(wanted.home.absolute())
        yield Target(stack["urls"]["api"], wanted.home.absolute(), profile="as it runs")
    else:
        with own_stack(wanted, profile=profile, env=env) as target:
            yield target


def _elsewhere(wanted: Wanted) -> Target:
    parts = urlsplit(wanted.host)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise TargetError(f"--host {wanted.host} is no address: write it like http://127.0.0.1:8000")
    if parts.hostname not in LOOPBACK and not wanted.i_own:
        raise TargetError(f"{parts.hostname} is not this machine: load only what you own, and say so with --i-own")
    if wanted.tokens is None and wanted.home is None:
        raise TargetError("--host needs --tokens FILE (made where the issuer is: `plumbline token --count 100`)")
    return Target(wanted.host.rstrip("/"), None, wanted.tokens, wanted.i_own)


@contextmanager
def own_stack(wanted: Wanted, *, profile: Profile = "load", env: Mapping[str, str] | None = None) -> Iterator[Target]:
    """A fresh stack in a folder of its own; whatever an earlier run left there is deleted first."""
    home = Path(os.environ.get("PLUMBLINE_HOME", ".plumbline")).absolute() / "load"
    port = int(os.environ.get("HTTP_PORT", "8000")) + _OFFSET
    print(f"a stack of its own on port {port} in {home}, profile {profile}", flush=True)
    code = run_reset(home)
    if code:
        raise StackError(f"what an earlier run left in {home} cannot be removed")
    with running_stack(
        home, port, ops_port=port + _OPS_OFFSET, api=wanted.api, workers=wanted.workers, kafka=wanted.kafka, profile=profile, env=env, echo=True
    ) as stack:
        for process in stack["processes"]:
            stand_back(process["pid"])
        yield Target(stack["urls"]["api"], home, profile=profile)


def stand_back(pid: int) -> None:
    """Lower the priority of a process and of its children, and so of what they start: who measures must not queue behind what he measures.

    On shared cores a full service would starve its generator, and the run would end without a number.
    """
    with suppress(psutil.Error, ProcessLookupError):  # one of them has just ended
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            _lower_group(one.pid)
            for thread in one.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread.id)))


def _lower_group(pid: int) -> None:
    """Where the kernel shares out the cores by session (autogroup), a priority counts only within one: lower the session's as well."""
    group = Path(f"/proc/{pid}/autogroup")
    for pause_s in (0.0, *_AUTOGROUP_EVERY_S):
        time.sleep(pause_s)
        with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
            try:
                group.write_text(str(_NICE))
            except BlockingIOError:
                continue
        return
