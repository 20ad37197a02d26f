from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
from pathlib import Path
from socket import socket as Socket
from typing import Annotated, Any

import msgspec
import pytest
import websockets
from cliffracer_http.settings import HttpSettings
from cliffracer_websocket import Broadcast, RealTimeStreamProcessor, WebSocket, WebSocketDisconnect, absence, websocket
from cliffracer_websocket.ownport import OwnPort
from starlette.websockets import WebSocket as StarletteWebSocket
from websockets.asyncio.client import ClientConnection, connect

from cliffracer_core import (
    AuthorizationError,
    CliffracerService,
    ConfigurationError,
    MessageContext,
    NotFoundError,
    ServiceConfig,
    event,
    rpc,
)
from cliffracer_core.interfaces import SocketLimits
from cliffracer_core.testing import eventually


class Say(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(max_length=20)]


class Order(msgspec.Struct):
    order_id: int
    total: float


def config(name: str = "live", **sections: Any) -> ServiceConfig:
    return ServiceConfig(name, http={"port": 0}, **sections)


def url(service: Any, path: str) -> str:
    return str(service.http.url).replace("http", "ws", 1) + path


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Read to the end and return code and reason of the close frame."""
    await asyncio.wait_for(socket.wait_closed(), 5)
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


@pytest.fixture(autouse=True, params=["uvicorn", "hypercorn", "granian"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server in turn."""
    monkeypatch.setenv("CLIFFRACER_HTTP__SERVER", request.param)


class Live(CliffracerService):
    name = "live"
    stream = RealTimeStreamProcessor()
    seen: list[Any]

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.seen = []
        self.begun, self.release, self.rest = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @websocket("/rooms/{id}")
    async def room(self, websocket: WebSocket, id: int, context: MessageContext) -> None:
        await websocket.accept()
        await websocket.send_json({"id": id, "kind": context.kind, "subject": context.subject})
        while True:
            await websocket.send_text((await websocket.receive_text()).upper())

    @websocket("/foreign")
    async def foreign(self, socket: StarletteWebSocket) -> None:
        await socket.send_text("accepted by the first use")

    @websocket("/say/{room}")
    async def say(self, message: Say, room: str, context: MessageContext) -> dict[str, Any] | None:
        if message.text == "quiet":
            return None
        if message.text == "fail":
            raise RuntimeError("secret")
        if message.text == "missing":
            raise NotFoundError("there is no such thing")
        return {"room": room, "text": message.text, "id": context.correlation_id, "headers": sorted(context.headers)}

    @websocket("/named")
    async def named(self, a: int, b: int = 2) -> int:
        return a + b

    @websocket("/refuse")
    async def refuse(self, websocket: WebSocket) -> None:
        raise AuthorizationError("members only")

    @websocket("/read/{what}")
    async def read(self, websocket: WebSocket, what: str) -> None:
        if what == "json":
            await websocket.send_json(await websocket.receive_json())
        else:
            await (websocket.receive_text() if what == "text" else websocket.receive_bytes())

    @websocket("/away/{what}")
    async def away(self, websocket: WebSocket, what: str) -> None:
        await self.stream.add_connection(websocket.id, websocket, groups=["away"])
        try:
            while what == "sending":
                await websocket.send_text("x")
                await asyncio.sleep(0.01)
            await asyncio.Event().wait()
        except BaseException as error:
            self.seen.append(f"{what}: {type(error).__name__}")
            raise

    @websocket("/ahead")
    async def ahead(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await eventually(lambda: not websocket.incoming.idle)  # as it is while the handler waits
        await websocket.send_text("".join([await websocket.receive_text() for _ in range(3)]))
        await eventually(lambda: not websocket.incoming.idle)
        await websocket.close(4001, "enough")

    @websocket("/hold")
    async def hold(self, order: dict[str, Any]) -> str:
        self.begun.set()
        await self.release.wait()
        return "done"

    @websocket("/busy")
    async def busy(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.seen.append("began")
        await self.rest.wait()
        self.seen.append("ended")

    @websocket("/crash")
    async def crash(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise RuntimeError("secret")


async def test_raw_socket_serves_when_its_path_matches() -> None:
    """A handler with a WebSocket runs for the socket, with path parameters of their types and its context."""
    async with Live(config()) as service, connect(url(service, "/rooms/7")) as socket:
        assert await receive(socket) == {"id": 7, "kind": "websocket", "subject": "/rooms/{id}"}
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


async def test_starlettes_websocket_is_injected_and_accepted_by_its_first_use() -> None:
    """Starlette's own type works as an annotation; sending accepts; the end of the handler closes with 1000."""
    async with Live(config()) as service, connect(url(service, "/foreign")) as socket:
        assert await socket.recv() == "accepted by the first use"
        assert (await closed(socket))[0] == 1000


async def test_handshake_is_refused_when_a_path_parameter_has_the_wrong_type() -> None:
    """An HTTP status, not an open socket."""
    async with Live(config()) as service:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url(service, "/rooms/seven"))
        assert refused.value.response.status_code == 400
        assert b"'id'" in (refused.value.response.body or b"")
        with pytest.raises(websockets.InvalidStatus) as unknown:
            await connect(url(service, "/nowhere"))
        assert unknown.value.response.status_code == 404
        assert json.loads(unknown.value.response.body or b"")["detail"] == "nothing is at '/nowhere'"


async def test_handshake_is_refused_when_the_handler_refuses_before_it_accepts() -> None:
    """An error of ours becomes its HTTP status, with its message as problem details."""
    async with Live(config()) as service:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url(service, "/refuse"))
        response = refused.value.response
        assert response.status_code == 403
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(response.body or b"")["detail"] == "permission_denied: members only"


async def test_nothing_internal_is_told_when_a_handler_crashes(caplog: pytest.LogCaptureFixture) -> None:
    """The socket closes with 1011; the trace is in the log alone."""
    async with Live(config()) as service, connect(url(service, "/crash")) as socket:
        assert await closed(socket) == (1011, "internal error")
    assert "secret" in caplog.text
    caplog.clear()


async def test_message_is_decoded_and_answered_when_the_handler_is_typed() -> None:
    """Each message becomes the handler's argument; what it returns is sent back, None is not."""
    async with Live(config()) as service, connect(url(service, "/say/hall")) as socket:
        await socket.send('{"text":"quiet"}')
        await socket.send('{"text":"hi"}')
        answer = await receive(socket)
        assert (answer["room"], answer["text"]) == ("hall", "hi")
        await socket.send(b'{"text":"bytes are JSON too"}')
        assert (await receive(socket))["text"] == "bytes are JSON too"


async def test_arguments_are_named_when_the_handler_has_several() -> None:
    """A message is then an object of the arguments."""
    async with Live(config()) as service, connect(url(service, "/named")) as socket:
        await socket.send('{"a":1}')
        assert await receive(socket) == 3
        await socket.send('{"a":1,"b":5}')
        assert await receive(socket) == 6


async def test_client_is_told_and_stays_when_its_message_does_not_fit() -> None:
    """Wrong types, missing fields and errors of ours are answered by an error that names them."""
    async with Live(config()) as service, connect(url(service, "/say/hall")) as socket:
        for sent, code, part in [
            ('{"text":5}', "validation_error", "'text'"),
            ("{}", "validation_error", "'text'"),
            ('{"text":"%s"}' % ("x" * 21), "validation_error", "'text'"),
            ("[]", "validation_error", "expected `object`"),
            ('{"text":"missing"}', "not_found", "there is no such thing"),
        ]:
            await socket.send(sent)
            answer = await receive(socket)
            assert answer["type"] == "error"
            assert answer["error"]["type"] == code
            assert part in answer["error"]["message"]
        await socket.send('{"text":"still here"}')
        assert (await receive(socket))["text"] == "still here"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ("nonsense", "JSON is malformed"),
        ('{"text":', "Input data was truncated"),
        ("", "Input data was truncated"),
        ('{"text":NaN}', "JSON is malformed"),
        ('{"text":' + "[" * 30_000 + "]" * 30_000 + "}", "body nests too deeply"),
        (b"\xff\xfe", "JSON is malformed"),
    ],
    ids=["nonsense", "cut", "empty", "nan", "deep", "bytes"],
)
async def test_socket_is_closed_with_1007_when_a_message_is_no_json(sent: str | bytes, why: str) -> None:
    """A client that speaks something else is told once what is wrong, by typed handlers and by `receive_json`."""
    async with Live(config()) as service:
        for path in ("/say/hall", "/read/json"):
            async with connect(url(service, path)) as socket:
                await socket.send(sent)
                code, reason = await closed(socket)
                assert (code, reason[:38]) == (1007, f"a message must be JSON: {why}"[:38])


async def test_socket_is_closed_with_1003_when_a_message_is_of_the_other_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Text where a handler takes bytes, and bytes where it takes text, are the client's mistake: no error is logged."""
    async with Live(config()) as service:
        sent: list[tuple[str, str | bytes, str]] = [
            ("/read/bytes", "text", "this socket takes binary messages"),
            ("/read/text", b"bytes", "this socket takes text messages"),
        ]
        for path, message, reason in sent:
            async with connect(url(service, path)) as socket:
                await socket.send(message)
                assert await closed(socket) == (1003, reason)
        async with connect(url(service, "/read/json")) as socket:
            await socket.send(b'{"x":1}')
            assert await receive(socket) == {"x": 1}
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_handler_hears_that_its_client_went_when_it_does_not_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its groups are left at once, its sends raise, and one that neither sends nor receives ends in time."""
    monkeypatch.setattr(absence, "_EVERY_S", 0.05)
    async with Live(config(timeout=0.2)) as service:
        open_ones = [await connect(url(service, f"/away/{what}")) for what in ("sending", "waiting") * 2]
        for each in open_ones:
            await each.send("not read")
        await eventually(lambda: len(service.stream.presence("away")) == 4)
        for number, each in enumerate(open_ones):
            await each.close() if number < 2 else each.transport.abort()
        await eventually(lambda: service.stream.presence("away") == {})
        await eventually(lambda: len(service.seen) == 4)
        assert sorted(service.seen) == ["sending: WebSocketDisconnect"] * 2 + ["waiting: CancelledError"] * 2


async def test_messages_are_kept_when_they_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came while a handler was busy it gets in order, and it can close with a code of its own."""
    monkeypatch.setattr(absence, "_EVERY_S", 0.05)
    async with Live(config()) as service, connect(url(service, "/ahead")) as socket:
        for number in range(3):
            await socket.send(str(number))
        assert await socket.recv() == "012"
        assert await closed(socket) == (4001, "enough")


async def test_socket_is_closed_with_1011_when_a_message_crashes_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing internal leaks."""
    async with Live(config()) as service, connect(url(service, "/say/hall")) as socket:
        await socket.send('{"text":"fail"}')
        assert await closed(socket) == (1011, "internal error")
    caplog.clear()


async def test_only_listed_headers_enter_when_a_socket_opens(caplog: pytest.LogCaptureFixture) -> None:
    """A correlation id of the allowed form and traceparent get in, internal headers do not; no token is logged."""
    caplog.set_level(logging.INFO)
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {
        "X-Correlation-ID": "from-outside.1",
        "traceparent": trace,
        "Nats-Service-Error": "x",
        "Reply-All-To": "x",
    }
    async with Live(config()) as service:
        async with connect(url(service, "/say/hall"), additional_headers=headers) as socket:
            await socket.send('{"text":"hi"}')
            answer = await receive(socket)
            assert answer["id"] == "from-outside.1"
            assert answer["headers"] == ["X-Correlation-ID", "traceparent"]
        async with connect(
            url(service, "/say/hall?token=s3cret"), additional_headers={"X-Correlation-ID": "bad id;"}
        ) as socket:
            await socket.send('{"text":"hi"}')
            assert "bad id;" not in (await receive(socket))["id"]
    assert "s3cret" not in "".join(each.message for each in caplog.records if not each.name.startswith("websockets."))


class Reference(CliffracerService):
    """The reference documents' names, without a decorator."""

    name = "reference"
    websocket_broadcast: Broadcast

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.log: list[Any] = []

    async def on_websocket_connect(self, websocket: Any) -> None:
        self.log.append("connected")
        await websocket.send_json({"hello": True})

    async def on_websocket_disconnect(self, websocket: Any) -> None:
        self.log.append("disconnected")

    async def on_websocket_message(self, websocket: Any, data: dict[str, Any]) -> None:
        self.log.append(data)
        await self.websocket_broadcast({"said": data["text"]})


async def test_reference_methods_work_when_a_service_has_them() -> None:
    """`on_websocket_connect/message/disconnect` and `websocket_broadcast`, on the path `/ws`."""
    async with Reference(config("reference")) as service:
        async with connect(url(service, "/ws")) as one, connect(url(service, "/ws")) as two:
            assert await receive(one) == await receive(two) == {"hello": True}
            await one.send('{"text":"hi"}')
            assert await receive(one) == await receive(two) == {"said": "hi"}
        await eventually(lambda: service.log.count("disconnected") == 2)
        assert service.log[:3] == ["connected", "connected", {"text": "hi"}]


async def test_websocket_handler_has_the_socket_when_a_service_defines_it() -> None:
    """`websocket_handler` takes the place of the loop that calls `on_websocket_message`."""

    class Own(CliffracerService):
        async def websocket_handler(self, websocket: WebSocket) -> None:
            try:
                await websocket.send_text(f"you said {await websocket.receive_text()}")
            except WebSocketDisconnect:
                raise AssertionError("it is open") from None

    async with Own(config("own", websocket={"path": "/live"})) as service, connect(url(service, "/live")) as socket:
        await socket.send("x")
        assert await socket.recv() == "you said x"


async def test_connecting_is_refused_with_1008_when_on_websocket_connect_refuses() -> None:
    """An error there closes the socket that was just accepted."""

    class Closed(CliffracerService):
        async def on_websocket_connect(self, websocket: WebSocket) -> None:
            raise AuthorizationError("not today")

    async with Closed(config("closed")) as service, connect(url(service, "/ws")) as socket:
        assert await closed(socket) == (1008, "permission_denied: not today")


async def test_sockets_are_served_on_their_own_port_when_one_is_set() -> None:
    """`websocket.port` keeps them apart from HTTP, of which nothing is served there."""
    service: Any = Reference(ServiceConfig("reference", websocket={"port": 0}))
    async with service:
        address = service.websocket_url()
        async with connect(f"{address}/ws") as socket:
            assert await receive(socket) == {"hello": True}
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{address}/nothing")
        assert refused.value.response.status_code == 404
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 426 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    with pytest.raises(OSError, match=r"(?i)connect"):
        await connect(f"{address}/ws")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Paths of a certificate for 127.0.0.1, which is its own authority, and of its key."""
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", chain, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key


async def test_own_port_speaks_tls_when_http_does(certificate: tuple[str, str]) -> None:
    """Who set a certificate does not get sockets without it."""
    chain, key = certificate
    http = {"tls_cert": chain, "tls_key": key}
    service: Any = Reference(ServiceConfig("reference", http=http, websocket_port=0))
    async with service:
        address = service.websocket_url()
        assert address.startswith("wss://")
        async with connect(f"{address}/ws", ssl=ssl.create_default_context(cafile=chain)) as socket:
            assert await receive(socket) == {"hello": True}


async def test_start_is_refused_when_two_services_have_one_path_on_a_port() -> None:
    """Sockets that were meant for one service do not open at another."""
    with Socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Reference(ServiceConfig("one", http={"port": port})):
        with pytest.raises(ConfigurationError, match="'one' and 'two' both have websockets at '/ws' on one port"):
            await Reference(ServiceConfig("two", http={"port": port})).start()


def test_own_port_is_refused_when_workers_cannot_share_it() -> None:
    """Workers listen on one port; where each took a free one, nobody would know which."""
    with pytest.raises(ConfigurationError, match="'cliffracer run --workers' need a websocket.port that is not 0"):
        OwnPort(HttpSettings(reuse_port=True), "127.0.0.1", 0, SocketLimits())


async def test_function_style_works_when_a_service_object_is_decorated() -> None:
    """`@service.websocket(path)` adds a handler to a service object."""
    service: Any = CliffracerService(config("functions"))

    @service.websocket("/add")  # type: ignore[untyped-decorator]  # the object is Any here
    async def add(a: int, b: int) -> int:
        return a + b

    async with service, connect(url(service, "/add")) as socket:
        await socket.send('{"a":1,"b":2}')
        assert await receive(socket) == 3


class Board(CliffracerService):
    name = "board"
    stream = RealTimeStreamProcessor()
    websocket_broadcast: Broadcast

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.registered = False

    @websocket("/ws/{client_id}")
    async def connect(self, websocket: WebSocket, client_id: str) -> None:
        self.stream.register_processor("say", self.said)
        await self.stream.add_connection(client_id, websocket, groups=["hall"])

    async def said(self, message: Say, client_id: str) -> None:
        await self.stream.broadcast_to_group("hall", {"by": client_id, "text": message.text})

    @event("order.*", to="room:{order_id}")
    async def order_changed(self, order: Order) -> None: ...

    @event("shipped.*", to="hall", key="{order_id}")
    async def shipped(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"shipped": data["order_id"]}

    @rpc
    async def move(self, client_id: str, group: str) -> None:
        await self.stream.join(client_id, group)


async def test_connection_stays_with_its_processor_when_the_handler_is_done() -> None:
    """After `add_connection` a handler may return: messages go to the processors, the end cleans up."""
    async with Board(config("board")) as service:
        async with connect(url(service, "/ws/ada")) as ada, connect(url(service, "/ws/bob")) as bob:
            await eventually(lambda: len(service.stream.presence("hall")) == 2)
            await ada.send('{"type":"say","text":"hi"}')
            assert await receive(ada) == await receive(bob) == {"by": "ada", "text": "hi"}
            await ada.send('{"type":"dance"}')
            assert (await receive(ada))["error"]["type"] == "not_found"
            await service.websocket_broadcast("all")
            assert await receive(ada) == await receive(bob) == "all"
        await eventually(lambda: service.stream.presence() == {})


async def test_event_reaches_its_group_when_it_is_bridged() -> None:
    """`@event(..., to=...)`: the event as it came, or what the handler made of it, in the group named by its fields."""
    async with Board(config("board")) as service, connect(url(service, "/ws/ada")) as ada:
        await eventually(lambda: "ada" in service.stream.presence("hall"))
        await service.rpc_call("board", "move", client_id="ada", group="room:5")
        await service.publish("order.paid", {"order_id": 6, "total": 1.0})
        await service.publish("order.paid", {"order_id": 5, "total": 2.5, "note": "extra"})
        assert await receive(ada) == {"order_id": 5, "total": 2.5, "note": "extra"}
        await service.publish("shipped.today", {"order_id": 5})
        assert await receive(ada) == {"shipped": 5}


async def test_event_is_refused_when_it_lacks_a_field_of_the_group(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which field; nobody is sent anything."""

    class Bridge(CliffracerService):
        @event("order.*", to="room:{customer.id}")
        async def changed(self, data: dict[str, Any]) -> None: ...

        @websocket("/ws")
        async def socket(self, websocket: WebSocket) -> None: ...

    async with Bridge(config("bridge")) as service:
        with caplog.at_level(logging.WARNING):
            await service.publish("order.new", {"order_id": 1})
            await eventually(lambda: "has no field 'customer.id'" in caplog.text)
    caplog.clear()


@pytest.mark.parametrize("to", ["", "room:{", "room:{order id}", "room:}x"])
async def test_start_is_refused_when_a_group_is_misspelt(to: str) -> None:
    """A template that cannot be filled is found at start."""

    class Wrong(CliffracerService):
        @event("order.*", to=to)
        async def changed(self, data: dict[str, Any]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"wrong\.changed"):
        await Wrong(config("wrong")).start()


async def test_start_is_refused_when_a_path_names_no_parameter() -> None:
    """A path and a signature that do not fit are found at start."""

    class Wrong(CliffracerService):
        @websocket("/rooms/{id}")
        async def room(self, websocket: WebSocket) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'wrong\.room': its path has 'id'"):
        await Wrong(config("wrong")).start()


def test_decorator_is_refused_when_its_path_is_none() -> None:
    """`@websocket` without a path would be the path of nothing."""
    with pytest.raises(ConfigurationError, match="does not begin with '/'"):
        websocket("rooms")


async def test_start_is_refused_when_a_setting_makes_no_sense() -> None:
    """`websocket.transport` names one of the service's transports; times and limits are more than nothing."""
    for name in ("port", "burst", "messages_per_s", "max_connections", "ping_interval_s", "beat_s", "stall_timeout_s"):
        with pytest.raises(ConfigurationError, match=f"websocket.*{name}"):
            await Reference(config("reference", websocket={name: -1})).start()
    with pytest.raises(ConfigurationError, match="'websocket.transport' is 'other'"):
        await Reference(config("reference", websocket={"transport": "other"})).start()


async def test_handler_that_wants_a_socket_says_so_when_it_is_called_otherwise() -> None:
    """Stacked with `@rpc`, a call without a socket is a typed error."""

    class Both(CliffracerService):
        @rpc
        @websocket("/ws")
        async def both(self, websocket: WebSocket) -> None: ...

    async with Both(config("both")) as service:
        with pytest.raises(Exception, match="wants a WebSocket and was called by 'rpc'"):
            await service.rpc_call("both", "both")


async def test_sockets_are_closed_with_1001_when_the_service_stops() -> None:
    """Open sockets hear where to go on, one whose message is handled after its answer, and a stop is bounded."""
    service = Live(config())
    await service.start()
    sockets = [await connect(url(service, path)) for path in ("/rooms/1", "/say/x", "/busy", "/hold")]
    await sockets[1].send('{"text":"hi"}')
    await receive(sockets[1])
    await sockets[3].send("{}")
    await service.begun.wait()
    await eventually(lambda: service.seen == ["began"])
    async with asyncio.timeout(5):
        stopping = asyncio.create_task(service.stop())
        async with asyncio.timeout(0.9):
            ends = [await closed(each) for each in sockets[:3]]
        assert not stopping.done()
        service.release.set()
        assert await sockets[3].recv() == '"done"'
        ends.append(await closed(sockets[3]))
        assert not (await asyncio.wait([stopping], timeout=0.1))[0]
        service.rest.set()
        await stopping
    assert {code for code, _ in ends} == {1001}
    assert all("resume" in reason for _, reason in ends)
    assert service.seen == ["began", "ended"], "a handler that has its socket may finish what it does"


async def test_message_is_cut_when_the_service_stops_and_it_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that never ends does not keep a service from stopping; its socket is told like the others."""
    service = Live(config(shutdown_grace_s=0.5))
    await service.start()
    async with connect(url(service, "/hold")) as socket, asyncio.timeout(5):
        await socket.send("{}")
        await service.begun.wait()
        await service.stop()
        assert (await closed(socket))[0] in (1001, 1006)
    caplog.clear()
