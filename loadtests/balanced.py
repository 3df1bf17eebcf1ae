"""Several API processes, each on ports of its own, behind haproxy with health checks: scaling as it is outside one host.

The processes share PostgreSQL and Redis with the stack they join, and nothing else; `tests/load/test_processes_share_state.py`
proves what that means. haproxy is Debian's; where it is missing the error says how to get it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import httpx

from loadtests.target import ROOT, Target, TargetError
from service.dev.children import spawn, stop

_READY_S = 120.0
_TEMPLATE = Path(__file__).with_name("haproxy.cfg")


@dataclass(frozen=True, slots=True)
class Server:
    """One API process behind the balancer."""

    url: str
    ops_url: str
    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Balanced:
    """The balancer's address as a target, and what stands behind it."""

    target: Target
    servers: list[Server]


@contextmanager
def behind_haproxy(target: Target, count: int, *, first_port: int, env: Mapping[str, str] | None = None) -> Iterator[Balanced]:
    """`count` processes on `first_port` + 1 …, health from + 20 …, the balancer on `first_port`. Raises `TargetError`."""
    binary = shutil.which("haproxy")
    if binary is None:
        raise TargetError("haproxy is missing: `apt-get install haproxy`")
    assert target.home is not None
    environment = _environment(target.home, count)
    logs = target.home / "logs"
    with ExitStack() as stack:
        servers = []
        for number in range(1, count + 1):
            port, ops = first_port + number, first_port + 20 + number
            own = environment | {"HTTP_PORT": str(port), "OPS_PORT": str(ops), **(env or {})}
            process = spawn([sys.executable, "-m", "service", "serve"], log=logs / f"balanced-{number}.log", env=own, directory=ROOT)
            stack.callback(stop, process, timeout_s=25)
            servers.append(Server(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops}", process))
        for server in servers:
            _await(f"{server.ops_url}/health/ready", server.process)
        config = target.home / "haproxy.cfg"
        config.write_text(configuration(servers, first_port))
        balancer = spawn([binary, "-f", str(config), "-db"], log=logs / "haproxy.log")
        stack.callback(stop, balancer)
        _await(f"http://127.0.0.1:{first_port}/docs", balancer, status=200)
        beside = [{"name": f"balanced-{n}", "role": "api", "pid": s.process.pid, "ops_url": s.ops_url} for n, s in enumerate(servers, 1)]
        beside.append({"name": "haproxy", "role": "haproxy", "pid": balancer.pid, "ops_url": ""})
        profile = f"{target.profile}, {count} behind haproxy"
        yield Balanced(Target(f"http://127.0.0.1:{first_port}", target.home, profile=profile, beside=tuple(beside)), servers)


def configuration(servers: list[Server], port: int) -> str:
    """haproxy's configuration for these."""
    lines = []
    for number, server in enumerate(servers, 1):
        address, check = server.url.removeprefix("http://"), server.ops_url.rpartition(":")[2]
        lines.append(f"    server api{number} {address} check port {check}")
    return Template(_TEMPLATE.read_text()).substitute(port=port, servers="\n".join(lines))


def _environment(home: Path, count: int) -> dict[str, str]:
    """What the stack's own processes have, with pools that still fit the budget and the balancer trusted."""
    found = {**os.environ, "PYTHONPATH": str(ROOT), "TRUSTED_PROXIES": "127.0.0.1/32"}
    for line in (home / "env").read_text().splitlines():
        if line.startswith("export ") and "=" in line:
            [assignment] = shlex.split(line.removeprefix("export "))
            name, _, value = assignment.partition("=")
            found[name] = value
    processes = int(found.get("APP_DB_PROCESSES", "4")) + count
    return found | {"APP_DB_PROCESSES": str(processes), "APP_DB_POOL_SIZE": str(max(1, min(10, 180 // processes))), "APP_REPLICAS": str(count)}


def _await(url: str, process: subprocess.Popen[bytes], *, status: int = 200) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2).status_code == status:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise TargetError(f"{url} was not ready within {_READY_S:g} s: see the logs folder of the stack")
