"""Health and metrics on the ops port of every process; never on the public one.

live = the loops turn · ready = send me work · startup = begun. Losing a dependency is not unready:
all pods would leave the load balancer together, and cached reads with them (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import orjson
import uvicorn
from prometheus_client.openmetrics import exposition
from starlette.types import Receive, Scope, Send

from service.foundation import metrics, pulse
from service.foundation.lifecycle import Lifecycle

Degraded = Callable[[], list[str]]


class OpsApp:
    """The ASGI application of the ops port. `degraded` names what works worse than it should."""

    def __init__(self, lifecycle: Lifecycle, degraded: Degraded = list) -> None:
        self._lifecycle = lifecycle
        self._degraded = degraded

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, content_type, body = self._answer(scope["path"])
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            self._lifecycle.oldest_beat_s()
            return 200, exposition.CONTENT_TYPE_LATEST, exposition.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
        checks = {"/health/startup": self._startup, "/health/live": self._live, "/health/ready": self._ready}
        if path not in checks:
            return 404, "application/json", b'{"status":"no such page"}'
        healthy, content = checks[path]()
        return 200 if healthy else 503, "application/json", orjson.dumps(content)

    def _startup(self) -> tuple[bool, dict[str, object]]:
        return self._lifecycle.started, {"status": "started" if self._lifecycle.started else "starting"}

    def _live(self) -> tuple[bool, dict[str, object]]:
        age = self._lifecycle.oldest_beat_s()
        return self._lifecycle.live, {"status": "live" if self._lifecycle.live else "stuck", "oldest_heartbeat_s": round(age, 1)}

    def _ready(self) -> tuple[bool, dict[str, object]]:
        reasons = self._lifecycle.not_ready()
        if reasons:
            return False, {"status": "not ready", "reasons": reasons}
        degraded = self._degraded()
        return True, {"status": "degraded", "degraded": degraded} if degraded else {"status": "ready"}


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handling: the process' lifecycle owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_ops(app: OpsApp, *, host: str, port: int) -> Callable[[], asyncio.Future[None]]:
    """Listen on the ops port; answers a function that stops it. Raises `OSError` if the port is taken."""
    listener = socket.create_server((host, port), reuse_port=False)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1)
    server = QuietServer(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    watching = asyncio.create_task(pulse.watch_loop(), name="pulse")

    def stop() -> asyncio.Future[None]:
        watching.cancel()
        server.should_exit = True
        return task

    return stop
