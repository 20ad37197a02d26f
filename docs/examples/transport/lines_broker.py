"""A broker that speaks JSON, one frame a line, over TCP: `python lines_broker.py [port]` prints the port it is on.

Enough to write a transport for. It keeps nothing, and lets anybody in: it listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Literal

import msgspec

from cliffracer_core.messages import Message
from cliffracer_core.subjects import compile_pattern

MAX_BODY = 1024 * 1024
LIMIT = 2 * MAX_BODY  # of a line: base64 makes a body a third longer, and there are headers


class Frame(msgspec.Struct, omit_defaults=True):
    """One line, either way; `id` is that of a subscription or a ping."""

    do: Literal["subscribe", "unsubscribe", "publish", "request", "ping", "message", "nobody", "pong"]
    id: int = 0
    subject: str = ""
    queue: str | None = None
    message: Message | None = None


class Listener(msgspec.Struct, frozen=True, eq=False):
    """Whom to tell of what."""

    matches: Callable[[str], bool]
    queue: str | None
    writer: asyncio.StreamWriter
    id: int


read = msgspec.json.Decoder(Frame).decode


def write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Send a frame."""
    writer.write(msgspec.json.encode(frame) + b"\n")


class Broker:
    """Hands each message to every listener without a queue, and to one of each queue."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[asyncio.StreamWriter, int], Listener] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one connection says, line by line, until it ends."""
        try:
            while line := await reader.readline():
                self.obey(read(line), writer)
                await writer.drain()
        except (OSError, ValueError, msgspec.MsgspecError):
            pass  # it broke off or talked nonsense; either way it goes
        finally:
            self.listeners = {key: each for key, each in self.listeners.items() if key[0] is not writer}
            writer.close()

    def obey(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        """Do what one frame says; all it leads to is written when this returns, so a pong comes after that."""
        if frame.do == "subscribe":
            matches = compile_pattern(frame.subject)
            self.listeners[writer, frame.id] = Listener(matches, frame.queue, writer, frame.id)
        elif frame.do == "unsubscribe":
            self.listeners.pop((writer, frame.id), None)
        elif frame.do == "ping":
            write(writer, Frame("pong", frame.id))
        elif frame.message is not None:
            heard = self.deliver(frame.message)
            if frame.do == "request" and not heard:
                write(writer, Frame("nobody", subject=frame.message.reply_to or ""))

    def deliver(self, message: Message) -> bool:
        """Pass a message on; tell whether anybody heard it."""
        queues: dict[str | None, list[Listener]] = {}
        for each in self.listeners.values():
            if each.matches(message.subject):
                queues.setdefault(each.queue, []).append(each)
        chosen = queues.pop(None, []) + [random.choice(members) for members in queues.values()]
        for each in chosen:
            write(each.writer, Frame("message", each.id, message=message))
        return bool(chosen)


async def main(port: int) -> None:
    """Listen until the process is ended."""
    server = await asyncio.start_server(Broker().serve, "127.0.0.1", port, limit=LIMIT)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
