from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from cliffracer_http.servers.choice import make_server
from cliffracer_http.servers.interface import ServerCapabilities
from cliffracer_websocket import WebSocket, stalls, websocket
from starlette.websockets import WebSocketDisconnect

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.testing import eventually

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_CODE = 1005
MASK = b"\x01\x02\x03\x04"


class Raw:
    """A client that can break every rule of RFC 6455."""

    opened: ClassVar[list[Raw]] = []
    """All of one test, which its end closes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, head: bytes) -> None:
        self.reader, self.writer, self.status, self.head = reader, writer, status, head
        self.opened.append(self)

    @classmethod
    async def connect(cls, url: str, path: str, *, address: str = "127.0.0.1", **headers: str) -> Raw:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
        lines = {
            "Host": f"{host}:{port}", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), **headers,
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        return cls(reader, writer, int(answer.split()[1]), answer)

    def send(
        self, opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, claimed: int = -1, bits: int = 0
    ) -> None:
        size = len(payload) if claimed < 0 else claimed
        head = bytes([(0x80 if fin else 0) | bits | opcode])
        bit = 0x80 if mask else 0
        if size < 126:
            head += bytes([bit | size])
        elif size < 65536:
            head += bytes([bit | 126]) + struct.pack("!H", size)
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", size)
        if mask:
            payload = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
            head += MASK
        self.writer.write(head + payload)

    async def receive(self) -> tuple[int, bytes]:
        async with asyncio.timeout(10):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> tuple[int, str]:
        """Read until the close frame and return its code and reason."""
        async with asyncio.timeout(10):
            while (found := await self.receive())[0] != CLOSE:
                pass
        payload = found[1]
        return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (NO_CODE, "")

    async def rest(self) -> bytes:
        """Return what comes until the server closes the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:  # it did not read all that was sent
                return b""

    async def aclose(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Echo(CliffracerService):
    name = "echo"
    closed: asyncio.Future[int]
    release: asyncio.Event

    @websocket("/echo")
    async def echo(self, message: Any) -> Any:
        return message

    @websocket("/hold")
    async def hold(self, message: Any) -> Any:
        await self.release.wait()
        return message

    @websocket("/listen")
    async def listen(self, websocket: WebSocket) -> None:
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as gone:
            if not self.closed.done():
                self.closed.set_result(gone.code)
            raise


def can(server: str) -> ServerCapabilities:
    return make_server(server).capabilities


def codes(server: str, code: int) -> set[int]:
    """Return the codes with which a socket may be closed that RFC 6455 wants closed with this one."""
    return {code} if can(server).socket_codes else {code, NO_CODE}


@contextlib.asynccontextmanager
async def serving(server: str, **settings: Any) -> AsyncIterator[Any]:
    async with Echo(ServiceConfig("echo", http={"port": 0, "server": server}, websocket=settings)) as service:
        service.closed, service.release = asyncio.get_running_loop().create_future(), asyncio.Event()
        yield service


async def still_serves(service: Any) -> None:
    """Others are served meanwhile."""
    client = await Raw.connect(service.http.url, "/echo")
    client.send(TEXT, b'"hi"')
    assert await client.receive() == (TEXT, b'"hi"')
    await client.aclose()


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    while Raw.opened:
        await Raw.opened.pop().aclose()


@pytest.fixture(params=["uvicorn", "hypercorn", "granian"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CLOSE_1005, CLOSE_999 = struct.pack("!H", 1005), struct.pack("!H", 999)
INVALID = {
    "unmasked": ([{"opcode": TEXT, "payload": b'"x"', "mask": False}], 1002),
    "reserved-opcode": ([{"opcode": 3, "payload": b"x"}], 1002),
    "reserved-control": ([{"opcode": 11, "payload": b"x"}], 1002),
    "reserved-bit": ([{"opcode": TEXT, "payload": b'"x"', "bits": 0x40}], 1002),
    "last-reserved-bit": ([{"opcode": TEXT, "payload": b'"x"', "bits": 0x10}], 1002),
    "continuation": ([{"opcode": 0, "payload": b"x"}], 1002),
    "two-messages": ([{"opcode": TEXT, "payload": b"x", "fin": False}, {"opcode": TEXT, "payload": b"x"}], 1002),
    "long-ping": ([{"opcode": PING, "payload": b"x" * 126}], 1002),
    "cut-ping": ([{"opcode": PING, "payload": b"x", "fin": False}], 1002),
    "utf-8": ([{"opcode": TEXT, "payload": b"\xff\xfe"}], 1007),
    "utf-8-cut": ([{"opcode": TEXT, "payload": b"\xf0", "fin": False}, {"opcode": 0, "payload": b'"'}], 1007),
    "short-close": ([{"opcode": CLOSE, "payload": b"\x03"}], 1002),
    "close-1005": ([{"opcode": CLOSE, "payload": CLOSE_1005}], 1002),
    "close-999": ([{"opcode": CLOSE, "payload": CLOSE_999}], 1002),
    "close-reason": ([{"opcode": CLOSE, "payload": b"\x03\xe8\xff"}], 1007),
    "2**40": ([{"opcode": TEXT, "payload": b"x" * 70_000, "claimed": 2**40}], 1009),
}


@pytest.mark.parametrize(("frames", "code"), INVALID.values(), ids=INVALID)
async def test_socket_is_closed_with_its_code_when_a_frame_is_invalid(
    server: str, frames: list[dict[str, Any]], code: int
) -> None:
    """Whatever RFC 6455 forbids is answered with the code that it names, and others are served."""
    async with serving(server) as service:
        client = await Raw.connect(service.http.url, "/echo")
        for frame in frames:
            client.send(**frame)
        assert (await client.close_code())[0] in codes(server, code)
        assert await client.rest() == b"", "something was sent after the close frame"
        await client.aclose()
        await still_serves(service)


async def test_message_is_refused_as_it_comes_when_it_is_too_long(server: str) -> None:
    """Its end need not come: what was sent of it is not kept."""
    if not can(server).socket_limit:
        pytest.skip(f"{server} reads a message to its end, and says so")
    async with serving(server, max_message_bytes=1000) as service:
        client = await Raw.connect(service.http.url, "/echo")
        for number in range(11):
            client.send(0 if number else TEXT, b"x" * 100, fin=False)
        assert (await client.close_code())[0] == 1009
        await client.aclose()


async def test_handler_learns_with_which_code_its_client_closed(server: str) -> None:
    """The code of the client's close frame, which is answered with the same one."""
    async with serving(server) as service:
        client = await Raw.connect(service.http.url, "/listen")
        client.send(CLOSE, struct.pack("!H", 4002) + b"bored")
        assert (await client.close_code())[0] == 4002
        assert await asyncio.wait_for(service.closed, 5) == 4002
        await client.aclose()


async def test_message_is_put_together_when_it_comes_in_fragments(server: str) -> None:
    """Fragments make one message, with control frames between them."""
    async with serving(server) as service:
        client = await Raw.connect(service.http.url, "/echo")
        client.send(TEXT, b'"a', fin=False)
        client.send(PING, b"now")
        client.send(0, b"b", fin=False)
        client.send(0, b'c"')
        answers = [await client.receive(), await client.receive()]
        assert sorted(answers) == [(TEXT, b'"abc"'), (PONG, b"now")]
        await client.aclose()


@pytest.mark.parametrize("fragments", [1, 50])
async def test_socket_is_closed_with_1009_when_a_message_is_too_long(server: str, fragments: int) -> None:
    """In one frame or in many that are each short enough."""
    async with serving(server, max_message_bytes=1000) as service:
        client = await Raw.connect(service.http.url, "/echo")
        part = b"x" * (1001 // fragments + 1)
        for number in range(fragments):
            client.send(0 if number else TEXT, part, fin=number == fragments - 1)
        assert (await client.close_code())[0] == 1009
        await still_serves(service)
        await client.aclose()


async def test_message_of_the_longest_size_is_taken(server: str) -> None:
    """The limit itself is allowed."""
    async with serving(server, max_message_bytes=1000) as service:
        client = await Raw.connect(service.http.url, "/echo")
        body = b'"' + b"x" * 998 + b'"'
        client.send(TEXT, body)
        assert await client.receive() == (TEXT, body)
        await client.aclose()


async def test_socket_is_closed_with_1008_when_a_client_sends_too_often(server: str) -> None:
    """Past the burst and the rate; what came before is answered."""
    async with serving(server, messages_per_s=1.0, burst=5) as service:
        client = await Raw.connect(service.http.url, "/echo")
        for _ in range(10):
            client.send(TEXT, b'"x"')
        for _ in range(5):
            assert await client.receive() == (TEXT, b'"x"')
        assert await client.close_code() == (1008, "more than 1 messages a second")
        await client.aclose()


async def test_connection_is_refused_when_there_are_too_many(server: str) -> None:
    """503 past the limit in all, 429 past that of an address; a closed one makes room."""
    for limit, status in (("max_connections", 503), ("max_connections_per_address", 429)):
        async with serving(server, **{limit: 2}) as service:
            open_ones = [await Raw.connect(service.http.url, "/listen") for _ in range(2)]
            refused = await Raw.connect(service.http.url, "/listen")
            assert refused.status == status
            assert b"application/problem+json" in refused.head
            await open_ones.pop().aclose()

            async def admitted() -> bool:
                client = await Raw.connect(service.http.url, "/listen")
                await client.aclose()
                return client.status == 101

            await eventually(admitted)
            for client in (*open_ones, refused):
                await client.aclose()


async def test_others_are_served_when_one_address_floods() -> None:
    """Of many handshakes at once exactly as many get in as one address may have; other addresses do not feel it."""
    async with serving("uvicorn", max_connections_per_address=20, max_connections=30) as service:

        async def flood(address: str) -> list[int]:
            claims = ({"X-Forwarded-For": f"10.0.0.{each}", "Forwarded": f"for=10.0.0.{each}"} for each in range(100))
            opening = (Raw.connect(service.http.url, "/listen", address=address, **each) for each in claims)
            return sorted(each.status for each in await asyncio.gather(*opening))

        assert await flood("127.0.0.2") == [101] * 20 + [429] * 80, (
            "what a client says of its address counts for nothing"
        )
        await still_serves(service)
        assert await flood("127.0.0.3") == [101] * 10 + [503] * 90, "in all there may be 30"
        sockets = _sockets(service)
        for client in Raw.opened:
            await client.aclose()
        await eventually(lambda: sockets.admission.total == 0)
        await still_serves(service)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ((), None, 101),
        ((), "own", 101),
        ((), "http://evil.example", 403),
        ((), "null", 403),
        ((), "", 403),
        (("https://app.example",), "https://app.example", 101),
        (("https://app.example",), "https://app.example.evil.example", 403),
        (("*",), "http://evil.example", 101),
        ((), "own\r\nOrigin: http://evil.example", 403),
    ],
)
async def test_page_of_another_origin_is_refused_unless_it_is_listed(
    server: str, origins: tuple[str, ...], origin: str | None, status: int
) -> None:
    """A browser sends its user's cookies with any page's handshake; only listed pages and the service's own may."""
    async with serving(server, origins=origins) as service:
        headers = {} if origin is None else {"Origin": origin.replace("own", service.http.url)}
        client = await Raw.connect(service.http.url, "/listen", **headers)
        assert client.status in (status, 400 if origin and "\n" in origin else status)
        await client.aclose()


async def test_handshake_is_refused_when_its_head_is_too_much(server: str) -> None:
    """Too many headers, or one that is too long, get a status, and the connection does not stay open for nothing."""
    async with serving(server) as service:
        for headers in ({f"X-{number}": "x" for number in range(110)}, {f"X-{number}": "x" for number in range(300)}):
            client = await Raw.connect(service.http.url, "/listen", **headers)
            assert client.status == 431
            await asyncio.wait_for(client.rest(), 5)
            await client.aclose()


async def test_nothing_is_compressed_when_nobody_asked_the_service_to(server: str) -> None:
    """permessage-deflate is refused by default, and spoken where it is set."""
    for compression in (False, True):
        async with serving(server, compression=compression) as service:
            offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
            client = await Raw.connect(service.http.url, "/listen", **offer)
            assert (b"permessage-deflate" in client.head) is (compression and can(server).socket_compression)
            await client.aclose()


async def test_message_is_refused_when_it_would_inflate_past_the_limit(server: str) -> None:
    """What was 30 MB before it was compressed is not made 30 MB again to see that it is too long."""
    if not can(server).socket_compression:
        pytest.skip(f"{server} compresses nothing, and says so")
    squeeze = zlib.compressobj(wbits=-15)
    packed = b"".join(squeeze.compress(b"x" * 1_000_000) for _ in range(30)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    async with serving(server, compression=True) as service:
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        client = await Raw.connect(service.http.url, "/listen", **offer)
        tracemalloc.start()
        try:
            client.send(TEXT, packed[:-4], bits=0x40)
            assert (await client.close_code())[0] == 1009
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        await client.aclose()


async def test_silent_client_is_cut_off_when_it_answers_no_ping(server: str) -> None:
    """A client that vanished without a word does not stay for ever."""
    if not can(server).socket_pings:
        pytest.skip(f"{server} pings nobody, and says so")
    async with serving(server, ping_interval_s=0.1, ping_timeout_s=0.2) as service:
        client = await Raw.connect(service.http.url, "/listen")
        assert (await client.receive())[0] == PING
        assert (await client.close_code())[0] == 1011
        await client.aclose()


async def test_client_is_not_cut_off_when_its_handler_is_too_busy_to_read_pongs(server: str) -> None:
    """A client that sends and answers its pings stays, however long a message takes; its answers come."""
    if not can(server).socket_pings:
        pytest.skip(f"{server} pings nobody, and says so")
    async with serving(server, ping_interval_s=0.1, ping_timeout_s=0.1) as service:
        client = await Raw.connect(service.http.url, "/hold")
        for _ in range(15):  # more than any server takes from the network before they are wanted
            client.send(TEXT, b'"x"')
        for _ in range(3):
            assert (ping := await client.receive())[0] == PING
            client.send(PONG, ping[1])
        service.release.set()
        answers = 0
        while answers < 15:
            opcode, payload = await client.receive()
            assert opcode in (TEXT, PING), payload
            answers += opcode == TEXT
        await client.aclose()


async def test_slow_reader_is_closed_with_1013_when_the_policy_disconnects(server: str) -> None:
    """Whatever it does next, it is told why: also where its handler waits for a message of its."""
    async with serving(server, policy="disconnect", queue_messages=5) as service:
        client = await Raw.connect(service.http.url, "/listen")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport
        sockets = _sockets(service)
        await eventually(lambda: len(sockets.connections) == 1)
        (socket,) = sockets.connections

        async def flood() -> bool:
            await service.websocket_broadcast("x" * 200_000)
            return bool(socket.outbox.closed)

        await eventually(flood)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
        assert await client.close_code() == (1013, "too slow: the queue is full; connect again and resume")
        await client.aclose()


async def test_client_that_never_reads_is_cut_off_when_it_stalls(
    server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue stays bounded, others get everything, and after the stall timeout it is gone."""
    monkeypatch.setattr(stalls, "_EVERY_S", 0.05)
    async with serving(server, stall_timeout_s=0.5, queue_messages=10) as service:
        stuck = await Raw.connect(service.http.url, "/listen")
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport
        reading = await Raw.connect(service.http.url, "/listen")
        sockets = _sockets(service)
        await eventually(lambda: len(sockets.connections) == 2)
        message = "x" * 50_000
        sent = 0

        async def flood() -> bool:
            nonlocal sent
            for _ in range(20):
                await service.websocket_broadcast(message)
                sent += 1
                assert (await reading.receive())[1].strip(b'"') == message.encode()
            return any(each.dropped for each in sockets.processor.stalled)

        await eventually(flood)
        (outbox,) = (each for each in sockets.processor.stalled if each.dropped)
        for _ in range(30):
            await service.websocket_broadcast(message)
            await reading.receive()
        assert outbox.waiting <= 10
        await eventually(lambda: len(sockets.connections) == 1)
        assert sockets.processor.stalled == set()
        await still_serves(service)
        for client in (stuck, reading):
            await client.aclose()
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def _sockets(service: Any) -> Any:
    from cliffracer_websocket.plugin import WebSocketPlugin

    (plugin,) = (each for each in service.runtime.plugins.manager.get_plugins() if isinstance(each, WebSocketPlugin))
    return plugin._running[service.info.id]
