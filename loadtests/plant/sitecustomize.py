"""A planted defect: with this folder on PYTHONPATH the API sleeps in the handler that places orders, as a file says.

The file (LOADTESTS_PLANT) holds `block 0.05` (the whole event loop sleeps) or `wait 0.5` (only this request does);
empty or missing: nothing. For `plumbline load sick` and its tests alone: nothing of the service knows of it.
"""

import os
import sys

if "serve" in sys.orig_argv and os.environ.get("LOADTESTS_PLANT"):
    import asyncio
    import time
    from pathlib import Path
    from typing import Any

    from service.orders import routes

    healthy = routes.place_order  # type: ignore[attr-defined]  # imported there, not exported
    asked = Path(os.environ["LOADTESTS_PLANT"])

    def ask() -> str:
        return asked.read_text() if asked.exists() else ""

    async def place_order(*arguments: Any, **named: Any) -> Any:
        """The real thing, after a sleep."""
        kind, _, seconds = ask().partition(" ")
        if kind == "block":
            time.sleep(float(seconds))  # noqa: ASYNC251 - the defect
        elif kind == "wait":
            await asyncio.sleep(float(seconds))
        return await healthy(*arguments, **named)

    routes.place_order = place_order  # type: ignore[attr-defined]  # that is the plant
