from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from cliffracer_websocket import Position, RealTimeStreamProcessor, WebSocketSettings
from cliffracer_websocket.streamlog import StreamLog

from cliffracer_core import ClientProxy, ConfigurationError, EncodingError, NotFoundError, ServiceInfo, ValidationError
from cliffracer_core.interfaces import Transport
from cliffracer_core.messages import Message
from cliffracer_core.testing import eventually, unique


class Socket:
    """A socket of someone else's: all it can is send."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.last: Any = None
        self.closed: int | None = None

    async def send(self, message: Any, /) -> None:
        if message["type"] == "websocket.close":
            self.closed = message["code"]
        else:
            self.last = message
            self.got.append(msgspec.json.decode(message["text"]))


@pytest.fixture(params=["memory", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    """Each transport in turn."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue("nats_url"))


Replicas = Callable[..., contextlib.AbstractAsyncContextManager[RealTimeStreamProcessor]]


@pytest.fixture
async def replica(url: str) -> Replicas:
    """Start one replica of a processor, over a transport of its own."""
    service = unique()

    @contextlib.asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[RealTimeStreamProcessor]:
        settings = {"beat_s": 0.1, **settings}
        info = ServiceInfo(name=service, version="1.0.0", settings={"websocket": WebSocketSettings(**settings)})
        async with ClientProxy(url) as client:
            processor = RealTimeStreamProcessor().bind(info, "live")
            await processor.open()
            try:
                await processor.attach(service, client.caller.transport())
                yield processor
            finally:
                await processor.close()

    return start


async def test_messages_go_to_their_group_when_it_has_clients() -> None:
    """The reference document's calls, in one process: groups, one client, all."""
    processor = RealTimeStreamProcessor()
    one, two = Socket(), Socket()
    await processor.add_connection("one", one, groups=["project:123"])
    await processor.add_connection("two", two)
    await processor.broadcast_to_group("project:123", {"type": "notification", "message": "x"})
    assert await processor.send_to_client("two", {"type": "update", "data": {}}) is True
    await processor.broadcast_all({"type": "system"})
    assert one.got == [{"type": "notification", "message": "x"}, {"type": "system"}]
    assert two.got == [{"type": "update", "data": {}}, {"type": "system"}]
    await processor.remove_connection("one")
    await processor.broadcast_to_group("project:123", 1)
    assert len(one.got) == 2
    assert await processor.send_to_client("one", 1) is False
    await processor.close()


async def test_message_is_encoded_once_when_many_get_it() -> None:
    """All sockets of a group are given one and the same frame."""
    processor, sockets = RealTimeStreamProcessor(), [Socket() for _ in range(3)]
    for number, socket in enumerate(sockets):
        await processor.add_connection(str(number), socket, groups=["g"])
    await processor.broadcast_to_group("g", {"x": 1})
    assert len({id(socket.last) for socket in sockets}) == 1
    await processor.broadcast_all({"x": 2})
    assert len({id(socket.last) for socket in sockets}) == 1
    await processor.close()


async def test_newer_socket_lives_when_a_client_connects_twice() -> None:
    """A client that comes back before its old socket is known to be dead is not kept out by it."""
    processor = RealTimeStreamProcessor()
    old, new = Socket(), Socket()
    await processor.add_connection("c", old, groups=["g"])
    await processor.add_connection("c", new)
    await processor.broadcast_all("x")
    assert old.closed == 1008
    assert (old.got, new.got) == ([], ["x"])
    assert processor.presence("g") == {}
    await processor.close()


async def test_groups_change_when_a_client_joins_and_leaves() -> None:
    """`join` and `leave` work on a connected client, and refuse one that is not."""
    processor, socket = RealTimeStreamProcessor(), Socket()
    await processor.add_connection("c", socket, user="ada")
    await processor.join("c", "g")
    assert processor.presence("g") == {"c": "ada"}
    await processor.leave("c", "g")
    assert processor.presence("g") == {}
    with pytest.raises(NotFoundError, match="'nobody' is not connected here"):
        await processor.join("nobody", "g")
    await processor.close()


@pytest.mark.parametrize("group", ["", "a\nb", "x" * 256, 5])
async def test_group_is_refused_when_its_name_is_none(group: Any) -> None:
    """A name is printable text of a bounded length; nothing of the client is taken in before that is known."""
    processor = RealTimeStreamProcessor()
    with pytest.raises(ValidationError, match="is not text of 1 to 255 bytes"):
        await processor.add_connection("c", Socket(), groups=["fine", group])
    with pytest.raises(ValidationError):
        await processor.broadcast_to_group(group, 1)
    assert processor.presence() == {}


async def test_message_is_refused_when_it_has_no_json() -> None:
    """The sender hears of it, not the clients."""
    with pytest.raises(EncodingError):
        await RealTimeStreamProcessor().broadcast_all(object())


class Move(msgspec.Struct):
    x: int


async def test_processor_gets_its_type_when_the_annotation_says_it() -> None:
    """Messages are decoded for the function registered for their type; the client is named where asked for."""
    processor, seen = RealTimeStreamProcessor(), list[Any]()

    async def typed(move: Move, client_id: str) -> str:
        seen.append((move, client_id))
        return "moved"

    processor.register_processor("move", typed)
    processor.register_processor("any", seen.append)
    assert await processor.incoming.handle("c1", b'{"type":"move","x":3}') == "moved"
    assert await processor.incoming.handle("c1", b'{"type":"any","y":[1]}') is None
    assert seen == [(Move(3), "c1"), {"type": "any", "y": [1]}]
    with pytest.raises(ValidationError, match="argument 'x'"):
        await processor.incoming.handle("c1", b'{"type":"move","x":"far"}')
    with pytest.raises(NotFoundError, match="message type 'fly' has no processor; known are any, move"):
        await processor.incoming.handle("c1", b'{"type":"fly"}')


@pytest.mark.parametrize("handler", [5, lambda: None, lambda a, b: None])
def test_processor_is_refused_when_it_cannot_take_a_message(handler: Any) -> None:
    """Found where it is registered, not with the first message."""
    with pytest.raises(ConfigurationError, match="processor 'x'"):
        RealTimeStreamProcessor().register_processor("x", handler)


@pytest.mark.parametrize(
    "argument", [{"policy": "panic"}, {"queue_messages": 0}, {"history_size": -1}, {"history_ttl_s": 0}]
)
def test_processor_is_refused_when_an_argument_makes_no_sense(argument: dict[str, Any]) -> None:
    """A wrong argument is told at once."""
    with pytest.raises(ConfigurationError, match="RealTimeStreamProcessor"):
        RealTimeStreamProcessor(**argument)


async def test_clients_of_every_replica_hear_when_one_broadcasts(replica: Replicas) -> None:
    """Groups, single clients and all are reached wherever they are connected, each once."""
    async with replica() as here, replica() as there:
        one, two = Socket(), Socket()
        await here.add_connection("one", one, groups=["g"])
        await there.add_connection("two", two, groups=["g"], user="ada")
        await eventually(lambda: here.presence("g") == {"one": "", "two": "ada"} == there.presence("g"))
        await here.broadcast_to_group("g", 1)
        await eventually(lambda: two.got == [1])
        assert await here.send_to_client("two", 2) is True
        await eventually(lambda: two.got == [1, 2])
        await there.broadcast_all(3)
        await eventually(lambda: (one.got, two.got) == ([1, 3], [1, 2, 3]))
        assert await here.send_to_client("nobody", 1) is False


async def test_presence_is_whole_when_a_replica_comes_and_goes(replica: Replicas) -> None:
    """A replica that starts learns who is there; one that stops takes its clients with it."""
    async with replica() as here:
        await here.add_connection("one", Socket(), groups=["g"])
        async with replica() as there:
            await eventually(lambda: there.presence("g") == {"one": ""})
            await there.add_connection("two", Socket(), groups=["g"])
            await eventually(lambda: len(here.presence("g")) == 2)
            await here.remove_connection("one")
            await eventually(lambda: there.presence("g") == {"two": ""})
        await eventually(lambda: here.presence("g") == {})


async def test_presence_forgets_a_replica_when_it_falls_silent(replica: Replicas) -> None:
    """A replica that was killed says no good-bye; its clients are gone after three missed signs of life."""
    async with replica() as here, replica() as there:
        await there.add_connection("two", Socket(), groups=["g"])
        await eventually(lambda: here.presence("g") == {"two": ""})
        cluster = there._replicas.cluster
        assert cluster is not None
        assert cluster._task is not None
        cluster._task.cancel()  # no sign of life any more, and no good-bye
        await eventually(lambda: here.presence("g") == {})


async def test_history_is_one_when_replicas_share_a_stream(replica: Replicas) -> None:
    """Every replica gives a message the same offset and epoch, so that a client may resume at any of them."""
    async with replica(history_size=5) as here, replica(history_size=5) as there:
        socket = Socket()
        await there.add_connection("c", socket, groups=["g"])
        start = here.position()
        for number in range(4):
            await (here, there)[number % 2].broadcast_to_group("g", number)
        await eventually(lambda: len(socket.got) == 4)
        await eventually(lambda: here.position() == there.position())
        assert sorted(socket.got) == [0, 1, 2, 3]
        missed, whole = here.replay("g", start)
        assert whole
        assert [(each.offset, each.data) for each in missed] == [
            (each.offset, each.data) for each in there.replay("g", start)[0]
        ]
        async with replica(history_size=5) as late:
            assert late.position() == here.position()
            assert [each.data for each in late.replay("g", start)[0]] == [each.data for each in missed]
            assert late.replay("g", start)[1]


async def test_loss_is_told_at_every_replica_when_messages_fell_out(replica: Replicas) -> None:
    """What one replica trimmed from the stream is known to be gone by one that starts later."""
    async with replica(history_size=3) as here:
        start = here.position()
        for number in range(8):
            await here.broadcast_to_group("g", number)
        await here.broadcast_to_group("other", "x")
        await eventually(lambda: len(here.replay("g", Position(0, start.epoch))[0]) == 3)
        log = here.log
        assert isinstance(log, StreamLog)
        await eventually(lambda: log.history.last >= start.offset + 9 and not log._trim)
        async with replica(history_size=3) as late:
            assert [each.data for each in late.replay("g", start)[0]] == [b"5", b"6", b"7"]
            assert late.replay("g", start)[1] is False
            assert late.replay("g", Position(start.offset + 5, start.epoch))[1] is True


@pytest.mark.parametrize("url", ["nats"], indirect=True)
async def test_subscribers_are_told_when_the_stream_was_made_anew(replica: Replicas) -> None:
    """A stream that lost its messages begins a new epoch; positions of the old one count as lost."""
    async with replica(history_size=5) as here:
        for number in range(5):
            await here.broadcast_to_group("g", number)
        await eventually(lambda: len(here.replay("g", Position(0, here.position().epoch))[0]) == 5)
        socket = Socket()
        await here.add_connection("plain", socket, groups=["g"])
        before, told, log = here.position(), asyncio.Event(), here.log
        assert isinstance(log, StreamLog)
        here.on_lost.append(told.set)
        await log._transport.request(Message(f"$JS.API.STREAM.DELETE.{log._stream}"), 5.0)
        await here.broadcast_to_group("g", "new")
        await asyncio.wait_for(told.wait(), 10)
        await eventually(lambda: here.position().epoch not in ("", before.epoch))
        assert here.replay("g", before) == ([], False)
        start = Position(0, here.position().epoch)
        await here.broadcast_to_group("g", "newer")
        await eventually(lambda: [each.data for each in here.replay("g", start)[0]] == [b'"new"', b'"newer"'])
        await eventually(lambda: socket.got == ["new", "newer"])


async def test_history_is_each_replicas_own_when_it_is_kept_in_memory(replica: Replicas) -> None:
    """A client that comes to another replica is told that its history is lost."""
    async with replica(history_size=5, history="memory") as here, replica(history_size=5, history="memory") as there:
        position = here.position()
        await here.broadcast_to_group("g", 1)
        missed, whole = here.replay("g", position)
        assert ([each.data for each in missed], whole) == ([b"1"], True)
        await eventually(lambda: there.position().offset == 1)
        assert there.replay("g", position) == ([], False)


async def test_history_is_refused_when_none_is_kept() -> None:
    """Asking for what nobody keeps says how to keep it."""
    with pytest.raises(ConfigurationError, match="keeps no history; set history_size above 0"):
        RealTimeStreamProcessor().position()


async def test_start_is_refused_when_history_needs_a_stream_that_is_not_there(nats_url: str) -> None:
    """`history='stream'` on a transport that stores nothing fails at start."""

    class Plain:
        def __init__(self, transport: Transport) -> None:
            self._transport = transport
            self.capabilities = msgspec.structs.replace(transport.capabilities, durable=False)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

    info = ServiceInfo(
        name=unique(), version="1.0.0", settings={"websocket": WebSocketSettings(history="stream", history_size=1)}
    )
    async with ClientProxy(nats_url) as client:
        processor = RealTimeStreamProcessor().bind(info, "live")
        transport: Any = Plain(client.caller.transport())
        with pytest.raises(ConfigurationError, match="'websocket.history' is 'stream'"):
            await processor.attach(info.name, transport)
        await processor.close()
