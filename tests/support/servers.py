"""Real servers for tests: PostgreSQL and Redis, started once a test session on free ports."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.dev.postgres import EmbeddedPostgres
from service.dev.redis import EmbeddedRedis
from tests.support.template import copy_template

_FIRST_PORT, _LAST_PORT, _SPAN = 18_000, 30_000, 110
_claimed: dict[int, IO[str]] = {}  # held until the process ends


@dataclass(slots=True)
class Servers:
    """Where the servers of this test session are."""

    home: Path
    base_port: int
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    def environment(self) -> dict[str, str]:
        """The environment a process of ours needs to use them."""
        return {
            "PLUMBLINE_HOME": str(self.home),
            "HTTP_PORT": str(self.base_port),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "APP_ENV": "test",
            "APP_PROFILE": "load",  # lifted limits; tests of the limits set their own
            "APP_AUTH_ISSUER": f"http://127.0.0.1:{self.base_port + 103}",
            "APP_AUTH_JWKS_URL": f"http://127.0.0.1:{self.base_port + 103}/.well-known/jwks.json",
            "APP_PAYMENTS_URL": f"http://127.0.0.1:{self.base_port + 104}",
            "APP_HTTP_ALLOWED_HOSTS": "127.0.0.1,localhost,testserver",
            "APP_WORKER_TIERS_S": "0.2,0.5",
            "APP_ORDERS_EXPIRE_SLACK_S": "0",
        }


def free_base_port() -> int:
    """A port below 32768 whose derived ports (domain: +100 … +107) are free too, and this process's alone while it runs."""
    slots = (_LAST_PORT - _FIRST_PORT) // _SPAN
    for step in range(slots):
        base = _FIRST_PORT + (os.getpid() + step) % slots * _SPAN
        if all(_is_free(base + offset) for offset in (0, *range(100, 110))) and _claim(base):
            return base
    raise RuntimeError("no free range of ports between 18000 and 30000: what is listening there?")


def _claim(base: int) -> bool:
    """Two test processes that look at the same moment both find a port free: a lock decides whose it is."""
    if base not in _claimed:
        lock = (Path(tempfile.gettempdir()) / f"plumbline-ports-{os.geteuid()}-{base}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        _claimed[base] = lock
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def running_servers(*, seeded: bool = False) -> Iterator[Servers]:
    """Start them in a temporary folder and stop them at the end. `seeded`: migrated, with the catalogue."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-test-", ignore_cleanup_errors=True)))
        base = free_base_port()
        servers = Servers(home, base, EmbeddedPostgres(home, base + 100), EmbeddedRedis(home, base + 101))
        stack.callback(servers.postgres.wipe)
        if seeded:
            copy_template(home, port=servers.postgres.port)
        for server in (servers.postgres, servers.redis):
            stack.callback(server.stop)
            server.start()
        yield servers
