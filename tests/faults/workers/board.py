"""Board: shows notes to sockets, with history."""

from __future__ import annotations

import os
from typing import Any

from cliffracer_websocket import RealTimeStreamProcessor, channels

from cliffracer_core import CliffracerService, ServiceConfig, rpc

from .serving import serve


class Board(CliffracerService):
    """Posts notes to a room."""

    name = "board"
    version = "1.0.0"
    stream = RealTimeStreamProcessor(history_size=100_000)
    http: Any

    def __init__(self, **options: Any) -> None:
        http = {"port": 0, "server": os.environ.get("SERVER", "uvicorn")}
        super().__init__(ServiceConfig("board", http=http), **options)

    @channels()
    async def may(self, channel: str) -> bool:
        """Let all in."""
        return True

    @rpc
    async def where(self) -> tuple[int, str]:
        """Return process id and address of the replica that answers."""
        return os.getpid(), self.http.url

    @rpc
    async def post(self, number: int) -> int:
        """Show a note; it is stored when this returns."""
        await self.stream.broadcast_to_group("room", number)
        return number


if __name__ == "__main__":
    serve(Board)
