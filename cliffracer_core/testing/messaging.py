"""The transport contract: publishing, listening, subjects, headers, payloads."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from cliffracer_core.errors import InvalidHeader, InvalidSubject, MessageTooLarge
from cliffracer_core.messages import Message

from .suite import TransportSuite, settle
from .waiting import Collector, unique

__all__ = ["BAD_HEADERS", "BAD_PATTERNS", "BAD_SUBJECTS", "MessagingContract"]

_BAD_EVERYWHERE = ("", ".", "a.", ".a", "a..b", "a b", " a", "a\tb", "a\r\nPUB x 0\r\n", "a.\x00b", "a.\ud800")
BAD_SUBJECTS = (*_BAD_EVERYWHERE, "a.*", "a.>", ">", "*")
BAD_PATTERNS = (*_BAD_EVERYWHERE, "a.>.b", "a.b*", "a.>>")
BAD_HEADERS = (
    {"X-A": "a\r\nX-B: b"},
    {"X-A": "a\nb"},
    {"X-A": "\r"},
    {"X A": "a"},
    {"X-A\r\nX-B": "a"},
    {"": "a"},
    {"X:A": "a"},
)
UNICODE = {"X-Text": "Grüße, мир, 世界 🌍", "X-Colons": "a:b: c=d;e", "X-Empty": "", "x-lower-Mixed": "Case"}


class MessagingContract(TransportSuite):
    """Messages that are not stored."""

    async def test_publish_arrives_with_subject_body_and_headers(self) -> None:
        """A subscriber gets what was published: subject, body as bytes, headers with their case."""
        sender, receiver, got = await self.connect(), await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await receiver.subscribe(subject, got)
        await sender.publish(Message(subject, b"\x00\xff body", {"X-One": "1"}, reply_to=f"{subject}.reply"))
        (message,) = await got.at_least(1)
        assert (message.subject, message.body, message.reply_to) == (subject, b"\x00\xff body", f"{subject}.reply")
        assert type(message.body) is bytes
        assert dict(message.headers or {}) == {"X-One": "1"}

    async def test_publish_arrives_at_the_sender_when_it_listens(self) -> None:
        """A transport hears what it publishes itself."""
        transport, got = await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await transport.subscribe(subject, got)
        await transport.publish(Message(subject, b"mine"))
        assert [each.body for each in await got.at_least(1)] == [b"mine"]

    async def test_publish_succeeds_when_nobody_listens(self) -> None:
        """Publishing to nobody is no error."""
        transport = await self.connect()
        await transport.publish(Message(f"{unique()}.a", b"x"))
        await transport.flush()

    async def test_publish_is_unaffected_when_the_message_changes_later(self) -> None:
        """What is sent is what the message was when publish returned, and no receiver sees another's changes."""
        transport, one, other = await self.connect("fanout"), Collector[Message](), Collector[Message]()
        subject = f"{unique()}.a"
        await transport.subscribe(subject, one)
        await transport.subscribe(subject, other)
        headers = {"X-One": "1"}
        message = Message(subject, b"before", headers)
        await transport.publish(message)
        headers["X-One"] = "2"
        message.body = b"after"
        (first,), (second,) = await one.at_least(1), await other.at_least(1)
        for each in (first, second):
            assert (each.body, dict(each.headers or {})) == (b"before", {"X-One": "1"})
        assert first is not second
        changing: Any = first.headers
        with contextlib.suppress(TypeError):  # where they cannot be changed, they may be the same
            changing["X-One"] = "3"
        assert dict(second.headers or {}) == {"X-One": "1"}

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("a", ["a"]),
            ("*", ["a", "b"]),
            (">", ["a", "b", "a.b", "a.b.c", "b.b"]),
            ("a.*", ["a.b"]),
            ("*.b", ["a.b", "b.b"]),
            ("a.>", ["a.b", "a.b.c"]),
            ("*.*.c", ["a.b.c"]),
            ("*.>", ["a.b", "a.b.c", "b.b"]),
        ],
    )
    async def test_wildcards_match_by_token(self, pattern: str, expected: list[str]) -> None:
        """`*` stands for exactly one token, a final `>` for one or more."""
        transport, got = await self.connect("wildcards"), Collector[Message]()
        token = unique()
        subscription = await transport.subscribe(f"{token}.{pattern}", got)
        for subject in ("a", "b", "a.b", "a.b.c", "b.b"):
            await transport.publish(Message(f"{token}.{subject}"))
        await transport.publish(Message(token))
        await settle(transport, (transport, subscription))
        assert sorted(each.subject for each in got.items) == sorted(f"{token}.{each}" for each in expected)

    async def test_every_subscriber_hears_when_they_share_no_queue(self) -> None:
        """Without a queue each subscriber of each transport gets each message once."""
        transports = [await self.connect("fanout") for _ in range(3)]
        subject, collectors, listening = f"{unique()}.a", [], []
        for transport in (*transports, transports[0]):
            collectors.append(Collector[Message]())
            listening.append((transport, await transport.subscribe(subject, collectors[-1])))
        for number in range(10):
            await transports[0].publish(Message(subject, b"%d" % number))
        await settle(transports[0], *listening)
        assert [[each.body for each in got.items] for got in collectors] == [[b"%d" % n for n in range(10)]] * 4

    async def test_one_member_hears_when_they_share_a_queue(self) -> None:
        """Of a queue group one member gets each message, and the work is shared."""
        sender = await self.connect("queue_groups")
        subject, collectors, listening = f"{unique()}.a", [], []
        for _ in range(3):
            transport = await self.connect()
            collectors.append(Collector[Message]())
            listening.append((transport, await transport.subscribe(subject, collectors[-1], queue="q")))
        sent = [b"%d" % number for number in range(100)]
        for body in sent:
            await sender.publish(Message(subject, body))
        await settle(sender, *listening)
        assert sorted(each.body for got in collectors for each in got.items) == sorted(sent)
        assert sum(bool(got.items) for got in collectors) >= 2

    async def test_one_member_hears_when_a_queue_spans_two_patterns(self) -> None:
        """A queue group is its name alone: members with different patterns share a message both match."""
        sender, token = await self.connect("queue_groups", "wildcards"), unique()
        one, other = Collector[Message](), Collector[Message]()
        listening = [
            (sender, await sender.subscribe(f"{token}.a", one, queue="q")),
            (sender, await sender.subscribe(f"{token}.*", other, queue="q")),
        ]
        for _ in range(20):
            await sender.publish(Message(f"{token}.a"))
        await settle(sender, *listening)
        assert len(one.items) + len(other.items) == 20

    async def test_each_queue_hears_when_there_are_several(self) -> None:
        """Each queue group gets each message, and so do plain subscribers beside them."""
        transport, subject = await self.connect("queue_groups", "fanout"), f"{unique()}.a"
        collectors = [Collector[Message]() for _ in range(3)]
        listening = []
        for got, queue in zip(collectors, ("users.audit", "mail.send", None), strict=True):
            listening.append((transport, await transport.subscribe(subject, got, queue=queue)))
        for _ in range(10):
            await transport.publish(Message(subject))
        await settle(transport, *listening)
        assert [len(got.items) for got in collectors] == [10, 10, 10]

    async def test_messages_stay_in_order_on_one_subject(self) -> None:
        """Messages of one publisher on one subject arrive in the order they were sent."""
        sender, receiver, got = await self.connect("ordered"), await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await receiver.subscribe(subject, got)
        for number in range(1000):
            await sender.publish(Message(subject, b"%d" % number))
        assert [int(each.body) for each in await got.at_least(1000)] == list(range(1000))

    async def test_header_values_are_unicode(self) -> None:
        """Header values arrive as they were, whatever their script; names keep their case."""
        transport, got, subject = await self.connect(), Collector[Message](), f"{unique()}.a"
        await transport.subscribe(subject, got)
        await transport.publish(Message(subject, b"", UNICODE))
        (message,) = await got.at_least(1)
        assert dict(message.headers or {}) == UNICODE

    @pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
    async def test_headers_are_refused_when_they_would_break_a_line(self, headers: dict[str, str]) -> None:
        """No header can smuggle in another, and of a refused message nothing is sent."""
        transport, got, subject = await self.connect(), Collector[Message](), f"{unique()}.a"
        subscription = await transport.subscribe(subject, got)
        with pytest.raises(InvalidHeader):
            await transport.publish(Message(subject, b"x", headers))
        if transport.capabilities.request:
            with pytest.raises(InvalidHeader):
                await transport.request(Message(subject, b"x", headers), 1)
        await settle(transport, (transport, subscription))
        assert got.items == []

    @pytest.mark.parametrize("subject", BAD_SUBJECTS, ids=ascii)
    async def test_subjects_are_refused_when_invalid(self, subject: str) -> None:
        """A subject with a space, a control character, an empty token or a wildcard cannot be sent to."""
        transport = await self.connect()
        with pytest.raises(InvalidSubject):
            await transport.publish(Message(subject, b"x"))
        with pytest.raises(InvalidSubject):
            await transport.publish(Message(f"{unique()}.a", b"x", reply_to=subject))
        if transport.capabilities.request:
            with pytest.raises(InvalidSubject):
                await transport.request(Message(subject, b"x"), 1)

    @pytest.mark.parametrize("pattern", BAD_PATTERNS, ids=ascii)
    async def test_patterns_are_refused_when_invalid(self, pattern: str) -> None:
        """A pattern or queue name that breaks the grammar cannot be listened to."""
        transport = await self.connect()
        with pytest.raises(InvalidSubject):
            await transport.subscribe(pattern, Collector[Message]())
        with pytest.raises(InvalidSubject):
            await transport.subscribe(f"{unique()}.a", Collector[Message](), queue=pattern)

    async def test_a_body_arrives_when_it_is_as_large_as_allowed(self) -> None:
        """A body of exactly `max_payload` bytes arrives; 1 MiB where there is no limit."""
        sender, receiver, got = await self.connect(), await self.connect(), Collector[Message]()
        subject = f"{unique()}.a"
        await receiver.subscribe(subject, got)
        size = sender.capabilities.max_payload or 1024 * 1024
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        await sender.publish(Message(subject, body))
        assert (await got.at_least(1))[0].body == body

    async def test_a_body_is_refused_when_it_is_one_byte_too_large(self) -> None:
        """A body past `max_payload` is refused before anything is sent, and the connection survives."""
        transport, got, subject = await self.connect(), Collector[Message](), f"{unique()}.a"
        if transport.capabilities.max_payload is None:
            pytest.skip("capability 'max_payload' is None: there is no limit")
        await transport.subscribe(subject, got)
        body = bytes(transport.capabilities.max_payload + 1)
        with pytest.raises(MessageTooLarge):
            await transport.publish(Message(subject, body))
        if transport.capabilities.request:
            with pytest.raises(MessageTooLarge):
                await transport.request(Message(subject, body), 1)
        await transport.publish(Message(subject, b"small"))
        assert [each.body for each in await got.at_least(1)] == [b"small"]
