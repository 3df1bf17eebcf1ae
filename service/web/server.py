"""The one uvicorn subclass: our lifecycle instead of its signals, and a drain told as a story.

1. A signal: readiness turns 503, new requests are still accepted while load balancers notice.
2. Stop accepting; requests in hand get `drain_timeout_s`.
3. Close pools and exporters, bounded; exit 0 if nothing was cut.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from service.foundation.lifecycle import Lifecycle
from service.settings import HttpSettings
from service.web.health import QuietServer


def _config(app: ASGIApp, settings: HttpSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # uvicorn trusts loopback otherwise; forwarded addresses are read by our own rule
        timeout_keep_alive=settings.keep_alive_s,
        limit_concurrency=None,
        backlog=2048,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


async def serve_api(app: ASGIApp, settings: HttpSettings, lifecycle: Lifecycle, *, fd: int | None = None) -> bool:
    """Serve until a signal, then drain; True if no request was cut. `fd`: an inherited listening socket."""
    listener = socket.socket(fileno=fd) if fd is not None else socket.create_server((settings.host, settings.port), backlog=2048)
    server = QuietServer(_config(app, settings))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="api-server")
    stopping = asyncio.create_task(lifecycle.stopping.wait(), name="await-stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await asyncio.sleep(settings.drain_wait_s)
        server.should_exit = True
    await serving
    stopping.cancel()
    return server.started and not server.server_state.tasks
