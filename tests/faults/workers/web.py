"""Web: answers HTTP at once, after a while, part by part, after a body that takes its time, and on sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from cliffracer_http import Body, get, post
from cliffracer_websocket import websocket

from cliffracer_core import CliffracerService

from .ledger import Ledger
from .serving import serve

SLOW_S = 0.3
PARTS = 10
PART_S = 0.05


class Web(CliffracerService):
    """Each request has an id, which the response repeats."""

    name = "web"
    version = "1.0.0"
    ledger = Ledger()

    @get("/quick/{id}")
    async def quick(self, id: str) -> str:
        """Answer at once."""
        with self.ledger.keep("quick", id):
            return id

    @get("/slow/{id}")
    async def slow(self, id: str) -> str:
        """Answer after a while."""
        with self.ledger.keep("slow", id):
            await asyncio.sleep(SLOW_S)
            return id

    @get("/stream/{id}")
    async def stream(self, id: str) -> AsyncIterator[str]:
        """Answer part by part."""
        with self.ledger.keep("stream", id):
            for _ in range(PARTS):
                yield f"{id}\n"
                await asyncio.sleep(PART_S)

    @post("/upload/{id}")
    async def upload(self, id: str, body: Annotated[bytes, Body()]) -> str:
        """Answer once the body is there."""
        with self.ledger.keep("upload", id):
            return f"{id} {len(body)}"

    @websocket("/echo")
    async def echo(self, message: str) -> str:
        """Answer each message of a socket."""
        return message


if __name__ == "__main__":
    serve(Web)
