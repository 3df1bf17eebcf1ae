"""A slow door in front of a server, as a process: `python -m tests.proofs.door PORT TARGET LATENCY_MS` (each direction)."""

from __future__ import annotations

import asyncio
import sys

from tests.faults.proxy import delay, running_proxy


async def _main(port: int, target: int, latency_ms: float) -> None:
    async with running_proxy(port, target) as proxy:
        await proxy.set_mode(delay(latency_ms / 1000))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
