"""Who belongs to an embedded stack: its ports, its processes, and the environment they share.

Every port derives from HTTP_PORT (health ports from OPS_PORT), so that two stacks run side by side.
When this is wrong a process talks to the wrong stack (`tests/integration/test_embedded_servers.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service.dev.children import require_free_port
from service.dev.state import ROOT

Role = Literal["postgres", "redis", "kafka", "issuer", "psp", "api", "relay", "reaper", "worker"]
BrokerKind = Literal["auto", "real", "memory"]


@dataclass(frozen=True)
class UpOptions:
    """What `plumbline up` was asked for. `ops_port` 0: HTTP_PORT + 1000. `env` wins over the stack's own settings."""

    home: Path
    http_port: int = 8000
    ops_port: int = 0
    api: int = 1
    workers: int = 1
    only: Literal["all", "deps"] = "all"
    profile: Literal["default", "load"] = "default"
    kafka: BrokerKind = "auto"
    reload: bool = False
    fresh: bool = False
    detach: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    """The ports of one stack."""

    http: int
    ops: int

    @classmethod
    def of(cls, options: UpOptions) -> Ports:
        return cls(http=options.http_port, ops=options.ops_port or options.http_port + 1000)

    postgres = property(lambda self: self.http + 100)
    redis = property(lambda self: self.http + 101)
    kafka = property(lambda self: self.http + 102)
    issuer = property(lambda self: self.http + 103)
    psp = property(lambda self: self.http + 104)


@dataclass(frozen=True)
class Member:
    """One Python process of the stack. `ready_url` answers 200 when it can be used."""

    name: str
    role: Role
    command: tuple[str, ...]
    ready_url: str
    ops_port: int | None = None

    @property
    def ops_url(self) -> str | None:
        return f"http://127.0.0.1:{self.ops_port}" if self.ops_port else None


def companions(ports: Ports) -> list[Member]:
    """The issuer and the payment provider: what the service needs around it besides its servers."""
    issuer, psp = str(ports.issuer), str(ports.psp)
    return [
        Member("issuer", "issuer", _service("issuer", "--port", issuer), f"http://127.0.0.1:{issuer}/.well-known/jwks.json"),
        Member("psp", "psp", _service("fake-psp", "--port", psp), f"http://127.0.0.1:{psp}/health"),
    ]


def service_members(options: UpOptions, ports: Ports, *, listener: int) -> list[Member]:
    """API, relay, reaper and workers, each with its own health port counted from `ports.ops`.

    `listener` is the inherited descriptor of the one public socket.
    """
    wanted: list[tuple[str, Role, tuple[str, ...]]] = [
        *((_numbered("api", n, options.api), "api", ("serve", "--fd", str(listener))) for n in range(options.api)),
        ("relay", "relay", ("relay",)),
        ("reaper", "reaper", ("reaper",)),
        *((_numbered("worker", n, options.workers), "worker", ("worker", "--all")) for n in range(options.workers)),
    ]
    return [
        Member(name, role, _service(*words), f"http://127.0.0.1:{port}/health/ready", ops_port=port)
        for port, (name, role, words) in enumerate(wanted, start=ports.ops)
    ]


def require_ports(options: UpOptions, ports: Ports) -> None:
    """Raise `StackError` naming the first taken port and its setting, before anything is started."""
    named = {"the API": (ports.http, "HTTP_PORT"), "the issuer": (ports.issuer, "HTTP_PORT + 103")}
    named["the payment provider"] = (ports.psp, "HTTP_PORT + 104")
    named |= {f"health and metrics {n}": (ports.ops + n, f"OPS_PORT + {n}") for n in range(options.api + options.workers + 2)}
    for owner, (port, setting) in named.items():
        require_free_port(port, owner=owner, setting=setting)


def environment(options: UpOptions, ports: Ports, *, database: str, redis: str, bootstrap: str, memory: bool) -> dict[str, str]:
    """The environment every Python process of the stack gets.

    Addresses are the stack's; for the rest the caller's environment wins, so that any setting can be tried.
    """
    pools = options.api + options.workers + 2
    defaults = {
        "APP_ENV": "development",
        "APP_WORKER_TIERS_S": "1,3,10",
        "APP_HTTP_DRAIN_WAIT_S": "0",  # there is no load balancer to wait for
        "APP_REPLICAS": str(options.api),
        "APP_DB_PROCESSES": str(pools),
        "APP_DB_POOL_SIZE": str(max(1, min(10, 180 // pools))),
        "APP_PROFILE": options.profile,
    }
    if memory:
        # Its groups forget a member only when its session times out.
        defaults["APP_KAFKA_SESSION_TIMEOUT_MS"] = "3000"
    return {
        **defaults,
        **os.environ,
        **({"APP_PROFILE": "load"} if options.profile == "load" else {}),
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "KAFKA_BOOTSTRAP": bootstrap,
        "APP_KAFKA_BROKER": "memory" if memory else "kafka",
        "HTTP_PORT": str(ports.http),
        "OPS_PORT": str(ports.ops),
        "PLUMBLINE_HOME": str(options.home),
        "APP_AUTH_ISSUER": f"http://127.0.0.1:{ports.issuer}",
        "APP_AUTH_JWKS_URL": f"http://127.0.0.1:{ports.issuer}/.well-known/jwks.json",
        "APP_PAYMENTS_URL": f"http://127.0.0.1:{ports.psp}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        **options.env,
    }


def tool(*words: str) -> tuple[str, ...]:
    """The command line of a one-shot `plumbline` command."""
    return _service(*words)


def _service(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "service", *words)


def _numbered(role: str, number: int, total: int) -> str:
    return role if total == 1 else f"{role}-{number + 1}"
