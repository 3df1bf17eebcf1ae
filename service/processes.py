"""The API process as a coroutine: signals, ops port, serving, draining, exit."""

from __future__ import annotations

import gc

from service.app import create_app, degraded
from service.foundation import tracing
from service.foundation.lifecycle import Lifecycle
from service.settings import Settings
from service.web.health import OpsApp, serve_ops
from service.web.server import serve_api


async def run_api(settings: Settings, *, fd: int | None = None) -> bool:
    """Serve until a signal; True if nothing was cut. `fd`: an inherited listening socket."""
    lifecycle = Lifecycle()
    lifecycle.install_signals()
    app = create_app(settings, lifecycle=lifecycle)
    ops = OpsApp(lifecycle, lambda: degraded(app.state.resources) if lifecycle.started else [])
    stop_ops = await serve_ops(ops, host=settings.http.ops_host, port=settings.http.ops_port)
    gc.freeze()  # what start-up made lives as long as the process: the collector need not look at it again
    clean = await serve_api(app.enter, settings.http, lifecycle, fd=fd)
    await stop_ops()
    tracing.shutdown()
    return clean
