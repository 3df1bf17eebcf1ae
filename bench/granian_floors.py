"""The floors served by granian instead of uvicorn, as its documentation embeds it: one worker, uvloop. Run by `compare_servers.py`."""

from __future__ import annotations

import os

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from bench.floors import Floors


async def main() -> None:
    """Serve until killed."""
    floors = Floors()
    await floors.open()
    await Server(floors, address="127.0.0.1", port=int(os.environ["HTTP_PORT"]), interface=Interfaces.ASGINL, log_enabled=False).serve()


if __name__ == "__main__":
    uvloop.run(main())
