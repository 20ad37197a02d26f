"""Frames that are written past a server's `send`: what a client sees must not tell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cliffracer_http.servers.frames import Frames, Turn, text_frame, writer
from cliffracer_websocket import WebSocket, websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.testing import eventually

SIZES = [0, 1, 125, 126, 65_535, 65_536, 200_000]
"""The length of a frame has three forms; the last is longer than what is held for a turn of the loop."""


class Talker(CliffracerService):
    name = "talker"
    app: Any
    http: Any
    websocket_broadcast: Any

    @websocket("/talk")
    async def talk(self, websocket: WebSocket) -> None:
        await websocket.accept()
        for size in SIZES:
            await websocket.send_text("ü" * size)
            await self.websocket_broadcast(size)
        await websocket.send_bytes(b"bytes")
        await websocket.send_text("last")
        await websocket.close(4001, "enough")

    @websocket("/listen")
    async def listen(self, websocket: WebSocket) -> None:
        while True:
            await websocket.receive_text()


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
async def test_messages_come_whole_and_in_order_when_many_are_sent_in_one_turn(server: str, compression: bool) -> None:
    """Texts of any length, broadcasts, bytes and the close frame keep their order, compressed or not."""
    config = ServiceConfig("talker", http={"port": 0, "server": server}, websocket={"compression": compression})
    async with Talker(config) as service, asyncio.timeout(20):
        address = service.http.url.replace("http", "ws") + "/talk"
        async with connect(address, max_size=None) as client:
            expected: list[str | bytes] = []
            for size in SIZES:
                expected += ["ü" * size, str(size)]
            expected += [b"bytes", "last"]
            assert [await client.recv() for _ in expected] == expected
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")


class Shouting:
    """A middleware that changes what is sent."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def shout(message: Any) -> None:
            text = message.get("text")
            await send(message if text is None else {**message, "text": text.upper()})

        await self._app(scope, receive, shout)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_middleware_gets_every_message_when_it_has_send_for_itself(server: str) -> None:
    """A frame is never written past a program's own middleware."""
    service = Talker(ServiceConfig("talker", http={"port": 0, "server": server}))
    service.app.add_middleware(Shouting)
    async with service, asyncio.timeout(20):
        address = service.http.url.replace("http", "ws") + "/listen"
        async with connect(address) as client:
            await client.send("one that is accepted by its first use")
            heard = asyncio.create_task(client.recv())

            async def told() -> bool:
                await service.websocket_broadcast("quiet")
                return heard.done()

            await eventually(told)
            assert await heard == '"QUIET"'


@pytest.mark.parametrize("size", SIZES)
def test_frame_is_what_a_library_makes_when_it_has_any_length(size: int) -> None:
    """The bytes are those of another implementation."""
    assert text_frame(b"x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)


class Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: Any) -> None:
        if self.aborted:
            raise RuntimeError("the handler is closed")
        self.written.append(data)


async def test_frames_are_written_at_once_when_they_are_of_one_turn() -> None:
    """One write for many frames; those held when the socket closes are not sent, and none is taken after that."""
    transport, state = Transport(), {"open": True, "read": True}
    frames = Frames(Turn(), transport, lambda: state["open"], lambda: state["read"])
    assert [frames.write(b"a"), frames.write(b"b")] == [True, True]
    assert transport.written == []
    await asyncio.sleep(0)
    assert transport.written == [b"ab"]
    assert frames.write(b"c" * 70_000)
    assert len(transport.written[-1]) == 70_000, "so much is not held"
    frames.write(b"d")
    state["read"] = False
    assert not frames.write(b"e"), "its client is behind"
    frames.flush()
    assert transport.written[-1] == b"d", "what was taken is sent"
    state["read"] = True
    frames.write(b"f")
    state["open"] = False
    await asyncio.sleep(0)
    assert transport.written[-1] == b"d"
    assert not frames.write(b"g")


async def test_others_get_their_frames_when_one_connection_is_aborted() -> None:
    """A connection that is gone in the middle of a turn takes nobody else's frames with it."""
    turn, transports = Turn(), [Transport(), Transport(), Transport()]
    for each in transports:
        assert Frames(turn, each, lambda: True, lambda: True).write(b"a")
    transports[1].aborted = True
    await asyncio.sleep(0)
    assert [each.written for each in transports] == [[b"a"], [], [b"a"]]


def test_nothing_is_offered_when_a_server_has_no_frames() -> None:
    """A scope without the extension, or whose `send` is another's, takes no frames."""
    scope: dict[str, Any] = {"extensions": {}}
    assert writer({}, print) is None
    assert writer(scope, print) is None
    frames = Frames(Turn(), Transport(), lambda: True, lambda: True)
    frames.offer(scope, print)
    assert writer(scope, repr) is None
    assert writer(scope, print) == frames.write
