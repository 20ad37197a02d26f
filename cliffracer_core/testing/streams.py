"""The transport contract: what a stream stores, refuses, shows and forgets."""

from __future__ import annotations

import pytest

from cliffracer_core.errors import (
    ConfigurationError,
    ConnectionError,
    InvalidHeader,
    InvalidSubject,
    MessageTooLarge,
    NotStored,
)
from cliffracer_core.interfaces import DurableSubscription, DurableTransport
from cliffracer_core.messages import Delivery, Message, StoredMessage
from cliffracer_core.subjects import stream_name

from .messaging import BAD_HEADERS, BAD_SUBJECTS
from .suite import TransportSuite, durable_on, store
from .waiting import Collector, unique

__all__ = ["StreamContract"]


async def browse(transport: DurableTransport, stream: str, after: int = 0) -> list[StoredMessage]:
    """List what a stream holds."""
    return [stored async for stored in transport.browse(stream, after=after)]


class StreamContract(TransportSuite):
    """Streams and dead letters."""

    async def test_a_message_id_is_stored_once(self) -> None:
        """The same message id on one stream is stored once; on another stream it is another message."""
        transport, token, other = await self.connect_durable(), unique(), unique()
        for body in (b"1", b"2"):
            for first in (token, other):
                message = Message(f"{first}.a", body)
                await transport.publish_durable(message, stream=stream_name(first), message_id="same", timeout_s=10)
        for first in (token, other):
            assert [each.message.body for each in await browse(transport, stream_name(first))] == [b"1"]

    async def test_a_plain_publish_is_stored_when_a_stream_takes_its_subject(self) -> None:
        """A durable handler hears events that were published without `durable`, once its stream exists."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await transport.publish(Message(f"{token}.a", b"too early"))
        await transport.consume(durable_on(token), got)
        await transport.publish(Message(f"{token}.a", b"plain", {"X-One": "1"}))
        (delivery,) = await got.at_least(1)
        assert (delivery.message.body, delivery.attempt) == (b"plain", 1)
        assert (delivery.message.headers or {}).get("X-One") == "1"
        assert delivery.message_id
        await delivery.ack()

    async def test_a_durable_publish_reaches_plain_subscribers(self) -> None:
        """A handler that is not durable hears events that were published durably."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Message]()
        await transport.subscribe(f"{token}.*", got)
        await store(transport, f"{token}.a", [b"x"])
        assert (await got.at_least(1))[0].body == b"x"

    async def test_a_stream_is_created_when_missing(self) -> None:
        """A stream made for one subject takes its first token and all below."""
        transport, token = await self.connect_durable(), unique()
        await store(transport, f"{token}.a.b", [b"1"])
        await store(transport, f"{token}.c", [b"2"])
        await store(transport, token, [b"3"])
        assert [each.message.body for each in await browse(transport, stream_name(token))] == [b"1", b"2", b"3"]

    async def test_consume_is_refused_when_the_stream_does_not_cover_the_pattern(self) -> None:
        """Consuming a pattern that a stream covers in part or not at all fails, naming stream and pattern."""
        transport, token = await self.connect_durable(), unique()
        await store(transport, f"{token}.a", [b"x"])
        for pattern in (f"{token}x.>", "*.a"):
            with pytest.raises(ConfigurationError) as caught:
                await transport.consume(durable_on(token, pattern), Collector[Delivery]())
            assert stream_name(token) in str(caught.value)
            assert pattern in str(caught.value)

    async def test_consume_is_refused_when_streams_would_overlap(self) -> None:
        """A subject belongs to one stream: another over part of it is refused."""
        transport, token = await self.connect_durable(), unique()
        await store(transport, f"{token}.a", [b"x"])
        second = DurableSubscription(stream=f"X{token}", pattern=f"{token}.a", durable="x.h")
        with pytest.raises(ConfigurationError):
            await transport.consume(second, Collector[Delivery]())

    @pytest.mark.parametrize("pattern", ["rpc.x.y", "rpc.>", ">", "*.created"])
    async def test_a_stream_is_refused_when_it_would_take_requests(self, pattern: str) -> None:
        """No stream is made over `rpc.>`: it would answer requests."""
        transport, stream = await self.connect_durable(), f"S{unique()}"
        with pytest.raises((ConfigurationError, InvalidSubject)):
            await transport.consume(
                DurableSubscription(stream=stream, pattern=pattern, durable="x.h"), Collector[Delivery]()
            )
        if pattern == "rpc.x.y":
            with pytest.raises((InvalidSubject, NotStored)):
                await transport.publish_durable(Message(pattern), stream=stream, message_id=stream, timeout_s=10)

    async def test_publish_fails_when_the_stream_does_not_take_the_subject(self) -> None:
        """A durable message that no stream stores fails with NotStored instead of vanishing."""
        transport, token = await self.connect_durable(), unique()
        await store(transport, f"{token}.a", [b"x"])
        with pytest.raises(NotStored):
            await store(transport, f"{unique()}.a", [b"lost"], stream=stream_name(token))
        assert [each.message.body for each in await browse(transport, stream_name(token))] == [b"x"]

    async def test_durable_publish_checks_what_it_sends(self) -> None:
        """Invalid subjects, headers and ids and bodies that are too large are refused and not stored."""
        transport, token = await self.connect_durable(), unique()
        stream = stream_name(token)
        await store(transport, f"{token}.a", [b"x"])
        for subject in BAD_SUBJECTS:
            with pytest.raises(InvalidSubject):
                await transport.publish_durable(Message(subject), stream=stream, message_id="1", timeout_s=10)
        for headers in BAD_HEADERS:
            with pytest.raises(InvalidHeader):
                await transport.publish_durable(
                    Message(f"{token}.a", b"", headers), stream=stream, message_id="2", timeout_s=10
                )
        with pytest.raises(InvalidHeader):
            await transport.publish_durable(Message(f"{token}.a"), stream=stream, message_id="3\r\nX: y", timeout_s=10)
        limit = transport.capabilities.max_payload
        if limit is not None:
            with pytest.raises(MessageTooLarge):
                await transport.publish_durable(
                    Message(f"{token}.a", bytes(limit + 1)), stream=stream, message_id="4", timeout_s=10
                )
        assert [each.message.body for each in await browse(transport, stream)] == [b"x"]

    async def test_durable_work_is_refused_when_it_is_closed(self) -> None:
        """A closed transport neither stores nor consumes nor acks, and says so with ConnectionError."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        await store(transport, f"{token}.a", [b"x"])
        await transport.consume(durable_on(token), got)
        (delivery,) = await got.at_least(1)
        await transport.close()
        with pytest.raises(ConnectionError):
            await delivery.ack()
        with pytest.raises(ConnectionError):
            await store(transport, f"{token}.a", [b"y"])
        with pytest.raises(ConnectionError):
            await transport.consume(durable_on(token), got)
        with pytest.raises(ConnectionError):
            await browse(transport, stream_name(token))

    async def test_browse_shows_what_is_stored_and_consumes_nothing(self) -> None:
        """Browsing yields all past a sequence number, oldest first, as published; consumers still get it."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        stream = stream_name(token)
        assert await browse(transport, stream) == []
        message = Message(f"{token}.a", b"0", {"X-One": "Grüße"})
        await transport.publish_durable(message, stream=stream, message_id=f"{token}-0", timeout_s=10)
        await store(transport, f"{token}.b", [b"1", b"2"])
        stored = await browse(transport, stream)
        assert [each.message.body for each in stored] == [b"0", b"1", b"2"]
        assert [each.message.subject for each in stored] == [f"{token}.a", f"{token}.b", f"{token}.b"]
        assert (stored[0].message.headers or {}).get("X-One") == "Grüße"
        assert [each.sequence for each in stored] == sorted({each.sequence for each in stored})
        assert stored[0].sequence > 0
        assert stored[0].stored_at > 1_600_000_000
        rest = await browse(transport, stream, after=stored[0].sequence)
        assert [each.message.body for each in rest] == [b"1", b"2"]
        assert await browse(transport, stream, after=stored[2].sequence) == []
        await transport.consume(durable_on(token), got)
        assert len(await got.at_least(3)) == 3

    async def test_delete_removes_one_message(self) -> None:
        """A deleted message is neither browsed nor delivered; deleting it again says that it was gone."""
        transport, token, got = await self.connect_durable(), unique(), Collector[Delivery]()
        stream = stream_name(token)
        assert await transport.delete(stream, 1) is False
        await store(transport, f"{token}.a", [b"0", b"1", b"2"])
        sequence = (await browse(transport, stream))[1].sequence
        assert await transport.delete(stream, sequence) is True
        assert await transport.delete(stream, sequence) is False
        assert [each.message.body for each in await browse(transport, stream)] == [b"0", b"2"]
        await transport.consume(durable_on(token), got)
        assert [each.message.body for each in await got.at_least(2)] == [b"0", b"2"]

    async def test_dead_letters_can_be_stored_shown_redriven_and_removed(self) -> None:
        """A service's dead-letter stream takes `dlq.<service>.>` and `redrive.<service>.>`, and no more."""
        transport, service, got = await self.connect_durable(), unique(), Collector[Delivery]()
        stream = f"DLQ_{service}"
        await store(transport, f"dlq.{service}.audit", [b"dead"], stream=stream)
        (dead,) = await browse(transport, stream)
        redrive = DurableSubscription(stream=stream, pattern=f"redrive.{service}.audit", durable=f"{service}.redrive")
        await transport.consume(redrive, got)
        everything = DurableSubscription(stream=stream, pattern=f"redrive.{service}.>", durable=f"{service}.all")
        await transport.consume(everything, Collector[Delivery]())
        await store(transport, f"redrive.{service}.audit", [b"again"], stream=stream)
        (delivery,) = await got.at_least(1)
        assert (delivery.message.subject, delivery.message.body) == (f"redrive.{service}.audit", b"again")
        await delivery.ack()
        assert await transport.delete(stream, dead.sequence) is True
        assert [each.message.body for each in await browse(transport, stream, after=dead.sequence)] == [b"again"]
        with pytest.raises(NotStored):
            await store(transport, f"dlq.{unique()}.audit", [b"x"], stream=stream)
