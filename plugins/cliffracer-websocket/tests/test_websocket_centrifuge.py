"""Channels, spoken to by the published SDKs of the Centrifuge protocol: npm `centrifuge` and `centrifuge-python`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets
from centrifuge import Client, SubscriptionEventHandler
from centrifuge.exceptions import CentrifugeError
from cliffracer_websocket import RealTimeStreamProcessor, channels
from websockets.asyncio.client import ClientConnection, connect

from cliffracer_core import AuthenticationError, AuthorizationError, CliffracerService, MessageContext, ServiceConfig
from cliffracer_core.testing import Collector, eventually

NODE = Path(__file__).with_name("node")
PATH = "/connection/websocket"


class Sum(msgspec.Struct):
    a: int
    b: int


class Rooms(CliffracerService):
    name = "rooms"
    stream = RealTimeStreamProcessor(history_size=100)

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.asked: list[tuple[str, str, Any]] = []

    @channels()
    async def may(self, channel: str, action: str, data: Any, client: str, context: MessageContext) -> bool:
        self.asked.append((channel, action, context.headers.get("Authorization")))
        if channel == "crash":
            raise RuntimeError("secret")
        if channel == "members":
            raise AuthorizationError("members only")
        if channel == "users" and "Authorization" not in context.headers:
            raise AuthenticationError("who are you")
        return channel != "closed" and (action == "subscribe" or channel == "open")


@contextlib.asynccontextmanager
async def serving(name: str = "rooms", **settings: Any) -> AsyncIterator[Any]:
    service = Rooms(ServiceConfig(name, http={"port": 0, "server": "uvicorn"}, websocket=settings))
    async with service:

        async def add(sum: Sum) -> int:
            return sum.a + sum.b

        service.stream.register_processor("add", add)
        yield service


def url(service: Any) -> str:
    return str(service.http.url).replace("http", "ws", 1) + PATH


class Subscription(SubscriptionEventHandler):  # type: ignore[misc]  # the SDK has no types
    """What the Python SDK says of one channel."""

    def __init__(self) -> None:
        self.subscribed: Collector[Any] = Collector()
        self.publications: Collector[Any] = Collector()

    async def on_subscribed(self, ctx: Any) -> None:
        self.subscribed(ctx)

    async def on_publication(self, ctx: Any) -> None:
        self.publications(ctx.pub)

    @property
    def data(self) -> list[Any]:
        return [each.data for each in self.publications.items]


@contextlib.asynccontextmanager
async def python_client(address: str, **options: Any) -> AsyncIterator[Any]:
    client: Any = Client(address, proxy=None, min_reconnect_delay=0.02, max_reconnect_delay=0.2, **options)
    await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


async def subscribe(client: Any, channel: str, **options: Any) -> tuple[Any, Subscription]:
    events = Subscription()
    subscription = client.new_subscription(channel, events, **options)
    await subscription.subscribe()
    await subscription.ready(5)
    return subscription, events


async def test_python_sdk_publishes_asks_and_hears() -> None:
    """Subscribe, publish, presence, history and remote calls, as the SDK offers them."""
    async with serving() as service, python_client(url(service), token="abc") as client:
        subscription, events = await subscribe(client, "open")
        await subscription.publish({"n": 1})
        await service.stream.broadcast_to_group("open", {"n": 2})
        await events.publications.at_least(2)
        assert events.data == [{"n": 1}, {"n": 2}]
        assert events.publications.items[0].offset < events.publications.items[1].offset
        assert len((await subscription.presence()).clients) == 1
        assert [each.data for each in (await subscription.history(limit=10)).publications] == [{"n": 1}, {"n": 2}]
        assert [each.data for each in (await subscription.history(limit=1, reverse=True)).publications] == [{"n": 2}]
        assert (await client.rpc("add", {"a": 1, "b": 2})).data == 3
        assert ("open", "subscribe", "Bearer abc") in service.asked
        await subscription.unsubscribe()
        await eventually(lambda: service.stream.presence("open") == {})


async def test_python_sdk_is_told_what_it_may_not() -> None:
    """Each refusal has the protocol's code; nothing internal leaks."""
    async with serving() as service, python_client(url(service)) as client:
        subscription, _ = await subscribe(client, "quiet")
        with pytest.raises(CentrifugeError) as denied:
            await subscription.publish(1)
        assert getattr(denied.value, "code", None) == 103
        with pytest.raises(CentrifugeError) as unknown:
            await client.rpc("nothing", 1)
        assert getattr(unknown.value, "code", None) == 104
        with pytest.raises(CentrifugeError) as wrong:
            await client.rpc("add", {"a": "x", "b": 1})
        assert getattr(wrong.value, "code", None) == 107


async def test_python_sdk_recovers_what_it_missed_when_it_comes_back() -> None:
    """Connection lost, messages sent meanwhile: they come in order, each once, and the SDK says so."""
    async with serving() as service, python_client(url(service)) as client:
        _, events = await subscribe(client, "open")
        await service.stream.broadcast_to_group("open", 0)
        await events.publications.at_least(1)
        for socket in list(_sockets(service).connections):
            socket.abort()
        for number in range(1, 6):
            await service.stream.broadcast_to_group("open", number)
        await events.publications.at_least(6)
        assert events.data == [0, 1, 2, 3, 4, 5]
        assert (events.subscribed.items[-1].was_recovering, events.subscribed.items[-1].recovered) == (True, True)


def _sockets(service: Any) -> Any:
    from cliffracer_websocket.plugin import WebSocketPlugin

    (plugin,) = (each for each in service.runtime.plugins.manager.get_plugins() if isinstance(each, WebSocketPlugin))
    return plugin._running[service.info.id]


async def test_python_sdk_is_told_of_the_loss_when_history_does_not_reach_back() -> None:
    """More was sent meanwhile than is kept: `recovered` is false."""
    async with serving() as service, python_client(url(service)) as client:
        _, events = await subscribe(client, "open")
        for socket in list(_sockets(service).connections):
            socket.abort()
        for number in range(150):
            await service.stream.broadcast_to_group("open", number)
        await eventually(lambda: len(events.subscribed.items) == 2)
        again = events.subscribed.items[-1]
        assert (again.was_recovering, again.recovered) == (True, False)


async def test_slow_client_recovers_by_itself_when_messages_were_dropped_for_it() -> None:
    """Where the queue overflows, the SDK is unsubscribed with 2500, subscribes again and gets what it missed."""
    async with serving(queue_messages=5) as service, connect(url(service), max_queue=None) as socket:
        await command(socket, 1, "connect", {})
        await command(socket, 2, "subscribe", {"channel": "open"})
        (member,) = service.stream.rooms.members.values()
        (connection,) = _sockets(service).connections
        writable = connection._send.__self__.writable  # what uvicorn clears while a client does not read
        writable.clear()
        for number in range(20):
            await service.stream.broadcast_to_group("open", number)
        await eventually(lambda: member.outbox.dropped > 0)
        await eventually(lambda: service.stream.position().offset >= 21)
        writable.set()
        pushes: list[Any] = []
        while not pushes or "unsubscribe" not in pushes[-1]:
            pushes.append((await receive(socket))["push"])
        assert pushes[-1]["unsubscribe"]["code"] == 2500
        got = [each["pub"] for each in pushes[:-1]]
        offset = got[-1]["offset"]
        epoch = service.stream.position().epoch
        answer = await command(
            socket, 3, "subscribe", {"channel": "open", "recover": True, "offset": offset, "epoch": epoch}
        )
        assert answer["recovered"] is True
        assert [each["data"] for each in (*got, *answer["publications"])] == list(range(20))


async def test_nothing_falls_between_history_and_what_is_live() -> None:
    """While messages are sent without a pause, a client that leaves and recovers again gets each one exactly once."""
    async with serving(history="memory") as service, connect(url(service)) as socket:
        sent, got = 0, list[int]()
        await command(socket, 1, "connect", {})
        where: dict[str, Any] = {"offset": 0, "epoch": service.stream.position().epoch}

        async def send() -> None:
            nonlocal sent
            while True:
                await service.stream.broadcast_to_group("open", sent)
                sent += 1
                await asyncio.sleep(0.001)

        sending = asyncio.create_task(send())
        try:
            for id in range(2, 42, 2):
                await socket.send(json.dumps({"id": id, "subscribe": {"channel": "open", "recover": True, **where}}))
                live = 0
                while (answer := await receive(socket)).get("id") != id + 1:
                    result = answer.get("subscribe")
                    publications = [answer["push"]["pub"]] if result is None else result["publications"]
                    assert result is None or result["recovered"]
                    got += [each["data"] for each in publications]
                    where["offset"] = max([where["offset"], *(each["offset"] for each in publications)])
                    live += result is None
                    if live == 3:
                        await socket.send(json.dumps({"id": id + 1, "unsubscribe": {"channel": "open"}}))
                await asyncio.sleep(0.005)
        finally:
            sending.cancel()
        assert len(got) > 50
        assert got == list(range(len(got)))


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def command(socket: ClientConnection, id: int, name: str, content: Mapping[str, Any]) -> Any:
    """Send a command and return its result, or its error."""
    await socket.send(json.dumps({"id": id, name: content}))
    while True:
        answer = await receive(socket)
        if answer.get("id") == id:
            return answer.get(name, answer.get("error"))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("subscribe", {"channel": "closed"}, 103),
        ("subscribe", {"channel": "members"}, 103),
        ("subscribe", {"channel": "users"}, 101),
        ("subscribe", {"channel": "crash"}, 100),
        ("subscribe", {"channel": ""}, 107),
        ("subscribe", {"channel": "x\u0000"}, 107),
        ("subscribe", {"channel": "x" * 300}, 107),
        ("subscribe", {"channel": "open", "recover": True, "offset": 99, "epoch": "old", "flag": 2}, 112),
        ("publish", {"channel": "elsewhere", "data": 1}, 103),
        ("presence", {"channel": "open"}, 103),
        ("history", {"channel": "open"}, 103),
        ("connect", {}, 107),
        ("refresh", {}, 104),
        ("rpc", {"method": "nothing"}, 104),
        ("dance", {}, 104),
    ],
)
async def test_command_fails_with_its_code_when_it_cannot_be(
    name: str, content: dict[str, Any], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of refusal has a code of the protocol, and the client stays connected."""
    async with serving() as service, connect(url(service)) as socket:
        await command(socket, 1, "connect", {})
        error = await command(socket, 2, name, content)
        assert error["code"] == code
        assert "secret" not in error["message"]
        assert await command(socket, 3, "ping", {}) == {}
    caplog.clear()


@pytest.mark.parametrize(
    "sent", ["{", "[]", '{"id":1,"subscribe":{"channel":"open"}}', '{"id":-1.5}', '{"connect":{}}']
)
async def test_socket_is_closed_with_3501_when_a_client_breaks_the_protocol(sent: str) -> None:
    """A code past 3500 tells an SDK not to try again."""
    async with serving() as service, connect(url(service)) as socket:
        await socket.send(sent)
        with pytest.raises(websockets.ConnectionClosed) as end:
            await socket.recv()
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 3501
        assert end.value.rcvd.reason.startswith("bad request")


async def test_client_is_pinged_and_cut_off_when_it_does_not_answer() -> None:
    """The protocol's own ping is an empty object, and so is its answer."""
    async with serving(ping_interval_s=1.0, ping_timeout_s=0.3) as service, connect(url(service)) as socket:
        await command(socket, 1, "connect", {})
        assert await receive(socket) == {}
        await socket.send("{}")
        assert await receive(socket) == {}
        with pytest.raises(websockets.ConnectionClosed) as end:
            await socket.recv()
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 3012


async def test_several_commands_are_obeyed_when_they_come_in_one_frame() -> None:
    """Lines of a frame are commands, each answered."""
    async with serving() as service, connect(url(service)) as socket:
        await socket.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"open"}}\n{"id":3,"ping":{}}\n')
        assert [(await receive(socket))["id"] for _ in range(3)] == [1, 2, 3]


async def test_client_is_limited_when_it_subscribes_and_asks_for_too_much() -> None:
    """Channels have a number, and commands a rate that sending many in one frame does not get around."""
    async with serving(max_channels=2, messages_per_s=1.0, burst=20) as service, connect(url(service)) as socket:
        await command(socket, 1, "connect", {})
        answers = [await command(socket, number, "subscribe", {"channel": f"c{number}"}) for number in (2, 3, 4)]
        assert [each.get("code") for each in answers] == [None, None, 106]
        await socket.send("\n".join(json.dumps({"id": number, "ping": {}}) for number in range(5, 55)))
        with pytest.raises(websockets.ConnectionClosed) as end:
            await socket.recv()
        assert end.value.rcvd is not None
        assert (end.value.rcvd.code, end.value.rcvd.reason) == (1008, "more than 1 messages a second")


async def test_data_of_a_client_stays_one_line_when_it_holds_line_breaks() -> None:
    """A publication with white space in it does not break the frames of others."""
    async with serving() as service, connect(url(service)) as socket:
        await command(socket, 1, "connect", {})
        await command(socket, 2, "subscribe", {"channel": "open"})
        await socket.send('{"id":3,"publish":{"channel":"open","data":{"a":\r 1}}}'.replace("\r", "\t"))
        frames = [await asyncio.wait_for(socket.recv(), 5) for _ in range(2)]
        assert all("\n" not in str(frame) for frame in frames)
        assert any(json.loads(frame).get("push", {}).get("pub", {}).get("data") == {"a": 1} for frame in frames)


# --- JavaScript -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node() -> Path:
    """A folder with the JavaScript SDK; CI installs it, and must."""
    required = bool(os.environ.get("REQUIRE_NODE"))
    if (NODE / "node_modules" / "centrifuge").is_dir():
        return NODE
    if shutil.which("node") is None or shutil.which("npm") is None:
        (pytest.fail if required else pytest.skip)("node and npm are not installed")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, timeout=120, check=False)
    if done.returncode:
        (pytest.fail if required else pytest.skip)(f"npm cannot install the SDK: {done.stderr.decode()[-500:]}")
    return NODE


class Script:
    """The JavaScript SDK in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: Collector[dict[str, Any]] = Collector()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events(json.loads(line))

    def do(self, name: str, **rest: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **rest}).encode() + b"\n")

    async def heard(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.all(event)) >= count)
        return self.all(event)

    def all(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events.items if each["event"] == event]


Scripts = Callable[[str], contextlib.AbstractAsyncContextManager[Script]]


@pytest.fixture
def script(node: Path) -> Scripts:
    @contextlib.asynccontextmanager
    async def start(address: str) -> AsyncIterator[Script]:
        process = await asyncio.create_subprocess_exec(
            "node", "client.mjs", address, cwd=node, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        script = Script(process)
        reading = asyncio.create_task(script.read())
        try:
            yield script
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 10)
            await reading

    return start


async def test_javascript_sdk_publishes_asks_and_hears(script: Scripts) -> None:
    """What a browser's SDK offers: subscribe, publish, presence, history, remote calls, messages."""
    async with serving() as service, script(url(service)) as client:
        client.do("connect")
        client.do("subscribe", channel="open")
        await client.heard("subscribed")
        client.do("publish", channel="open", data={"n": 1})
        await client.heard("publication")
        await service.stream.broadcast_to_group("open", {"n": 2})
        await service.stream.broadcast_all({"hello": "all"})
        assert [each["data"] for each in await client.heard("publication", 2)] == [{"n": 1}, {"n": 2}]
        assert (await client.heard("message"))[0]["data"] == {"hello": "all"}
        for name in ("presence", "history"):
            client.do(name, channel="open")
        client.do("rpc", method="add", data={"a": 2, "b": 3})
        assert (await client.heard("presence"))[0]["clients"] == [(await client.heard("connected"))[0]["client"]]
        assert (await client.heard("history"))[0]["data"] == [{"n": 1}, {"n": 2}]
        assert (await client.heard("rpc"))[0]["data"] == 5
        client.do("subscribe", channel="closed")
        assert (await client.heard("unsubscribed"))[0]["code"] == 103


async def test_javascript_sdk_recovers_what_it_missed_when_it_comes_back(script: Scripts) -> None:
    """As the Python SDK does: each message once, in order, and told so; or told of the loss."""
    async with serving() as service, script(url(service)) as client:
        client.do("connect")
        client.do("subscribe", channel="open")
        await client.heard("subscribed")
        await service.stream.broadcast_to_group("open", 0)
        await client.heard("publication")
        for socket in list(_sockets(service).connections):
            socket.abort()
        for number in range(1, 6):
            await service.stream.broadcast_to_group("open", number)
        assert [each["data"] for each in await client.heard("publication", 6)] == [0, 1, 2, 3, 4, 5]
        again = (await client.heard("subscribed", 2))[1]
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        service.stream._lost()
        await client.heard("subscribed", 3)
        assert any(each["code"] == 2500 for each in client.all("subscribing"))


async def test_javascript_sdk_connects_again_when_the_service_stops(script: Scripts) -> None:
    """1001 is a code on which an SDK comes back."""
    async with serving() as service, script(url(service)) as client:
        client.do("connect")
        await client.heard("connected")
        await service.stop()
        await client.heard("connecting", 2)
        assert client.all("disconnected") == []
