"""Serve a small helper application (issuer, fake provider) until a signal."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from service.foundation.lifecycle import Lifecycle
from service.settings import Settings
from service.web.health import QuietServer


async def run_plain(settings: Settings, app: ASGIApp, *, port: int) -> None:
    """Serve a helper application on loopback until a signal."""
    lifecycle = Lifecycle()
    lifecycle.install_signals()
    listener = socket.create_server((settings.http.host, port))
    server = QuietServer(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    stopping = asyncio.create_task(lifecycle.stopping.wait(), name="await-stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
