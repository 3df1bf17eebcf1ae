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
from typing import Literal, NamedTuple

from service.dev.children import require_free_port
from service.dev.state import ROOT

BrokerKind = Literal["auto", "real", "memory"]
Profile = Literal["default", "load"]


@dataclass(frozen=True)
class UpOptions:
    """What `plumbline up` was asked for. `ops_port` 0: HTTP_PORT + 1000. `env` wins over everything, addresses included."""

    home: Path
    http_port: int = 8000
    ops_port: int = 0
    api: int = 1
    workers: int = 1
    only_deps: bool = False
    profile: Profile = "default"
    kafka: BrokerKind = "auto"
    reload: bool = False
    fresh: bool = False
    detach: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


class Ports(NamedTuple):
    """The ports of one stack."""

    http: int
    ops: int
    postgres: int
    redis: int
    kafka: int
    issuer: int
    psp: int

    @classmethod
    def of(cls, options: UpOptions) -> Ports:
        first = options.http_port
        return cls(first, options.ops_port or first + 1000, *range(first + 100, first + 105))


class Member(NamedTuple):
    """One Python process of the stack. `ready_url` answers 200 when it can be used; `ops_port` 0: it has none."""

    name: str
    role: str
    command: tuple[str, ...]
    ready_url: str
    ops_port: int = 0


def command(*words: str) -> tuple[str, ...]:
    """The command line of `plumbline words…`."""
    return (sys.executable, "-m", "service", *words)


def companions(ports: Ports) -> list[Member]:
    """The issuer and the payment provider: what the service needs around it besides its servers."""
    return [
        Member("issuer", "issuer", command("issuer", "--port", str(ports.issuer)), f"http://127.0.0.1:{ports.issuer}/.well-known/jwks.json"),
        Member("psp", "psp", command("fake-psp", "--port", str(ports.psp)), f"http://127.0.0.1:{ports.psp}/dials"),
    ]


def service_members(options: UpOptions, ports: Ports, *, listener: int) -> list[Member]:
    """API, relay, reaper and workers, each with its own health port counted from `ports.ops`; `listener`: the inherited public socket."""
    serve = ("serve", "--fd", str(listener))
    wanted = [("api", serve)] * options.api + [("relay", ("relay",)), ("reaper", ("reaper",))] + [("worker", ("worker", "--all"))] * options.workers
    roles = [role for role, _ in wanted]
    members = []
    for index, (role, words) in enumerate(wanted):
        name = role if roles.count(role) == 1 else f"{role}-{roles[: index + 1].count(role)}"
        port = ports.ops + index
        members.append(Member(name, role, command(*words), f"http://127.0.0.1:{port}/health/ready", port))
    return members


def require_ports(options: UpOptions, ports: Ports) -> None:
    """Raise `StackError` naming the first taken port and its setting, before anything is started."""
    require_free_port(ports.issuer, owner="the issuer", setting="HTTP_PORT + 103")
    require_free_port(ports.psp, owner="the payment provider", setting="HTTP_PORT + 104")
    if not options.only_deps:
        require_free_port(ports.http, owner="the API", setting="HTTP_PORT")
        for member in service_members(options, ports, listener=0):
            require_free_port(member.ops_port, owner=f"{member.name}'s health page", setting=f"OPS_PORT + {member.ops_port - ports.ops}")


def environment(options: UpOptions, ports: Ports, addresses: Mapping[str, str]) -> dict[str, str]:
    """What every Python process of the stack gets: defaults, then the caller's environment, the stack's own addresses, `options.env`."""
    pools = options.api + options.workers + 2
    defaults = {
        "APP_ENV": "development",
        "APP_PROFILE": options.profile,
        "APP_WORKER_TIERS_S": "1,3,10",
        "APP_HTTP_DRAIN_WAIT_S": "0",  # there is no load balancer to wait for
        "APP_REPLICAS": str(options.api),
        "APP_DB_PROCESSES": str(pools),
        "APP_DB_POOL_SIZE": str(max(1, min(10, 180 // pools))),
    }
    own = {
        "HTTP_PORT": str(ports.http),
        "OPS_PORT": str(ports.ops),
        "PLUMBLINE_HOME": str(options.home),
        "APP_AUTH_ISSUER": f"http://127.0.0.1:{ports.issuer}",
        "APP_AUTH_JWKS_URL": f"http://127.0.0.1:{ports.issuer}/.well-known/jwks.json",
        "APP_PAYMENTS_URL": f"http://127.0.0.1:{ports.psp}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    asked = {"APP_PROFILE": "load"} if options.profile == "load" else {}
    return {**defaults, **os.environ, **asked, **own, **addresses, **options.env}
