"""Real processes of ours on the session's servers: the token issuer and as many APIs as a test wants."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.servers import Servers

_READY_S = 180.0


@dataclass(frozen=True, slots=True)
class Member:
    """`python -m service <command>`; `ready` is the URL that answers 200 once it serves."""

    command: str
    ready: str
    log: Path
    environment: dict[str, str]


@contextlib.contextmanager
def running(*members: Member) -> Iterator[None]:
    """All of them, started side by side, until the block ends."""
    with contextlib.ExitStack() as stack:
        started = [(member, _start(member, stack)) for member in members]
        for member, process in started:
            _await(member, process)
        yield


def _start(member: Member, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    output = stack.enter_context(member.log.open("wb"))
    command = [sys.executable, "-m", "service", member.command]
    process = subprocess.Popen(command, env=os.environ | member.environment, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _await(member: Member, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(member.ready).status_code == 200:
                return
        assert process.poll() is None, f"{member.command} ended before it was ready:\n{member.log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"{member.ready} did not answer within {_READY_S:g} s:\n{member.log.read_text()[-2000:]}"
        time.sleep(0.05)


@contextlib.contextmanager
def running_apis(servers: Servers, count: int, **over: str) -> Iterator[list[str]]:
    """The issuer and `count` APIs with ports of their own, and `over` in their environment; answers the base URLs."""
    base, home = servers.base_port, servers.home
    keys = f"http://127.0.0.1:{base + 103}/.well-known/jwks.json"
    members = [Member("issuer", keys, home / "issuer.log", servers.environment())]
    for port in range(base + 105, base + 105 + count):
        ours = {"HTTP_PORT": str(port), "OPS_PORT": str(port + count), "APP_PROFILE": "load"} | over
        ready = f"http://127.0.0.1:{port + count}/health/ready"
        members.append(Member("serve", ready, home / f"api-{port}.log", servers.environment() | ours))
    with running(*members):
        yield [f"http://127.0.0.1:{base + 105 + number}" for number in range(count)]
