"""A server of thirty lines in a process of its own: what is measured on it is the measuring. `tiny_server.py DELAY_S`."""

from __future__ import annotations

import asyncio
import json
import sys

_DELAY_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET /v1/products/{sku}, keep-alive, until the client goes."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(_DELAY_S)
            body = json.dumps({"sku": head.split(b" ", 2)[1].rpartition(b"/")[2].decode()}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Print the port, serve until killed."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
