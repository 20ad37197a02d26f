"""The transport contract: requests and their replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cliffracer_core.errors import ConnectionError, DeadlineExceeded, NoHandler
from cliffracer_core.interfaces import Transport
from cliffracer_core.messages import Message

from .messaging import UNICODE
from .suite import TransportSuite, settle
from .waiting import TIMEOUT_S, Collector, unique

__all__ = ["RequestContract", "replier"]


def replier(
    transport: Transport, answer: Callable[[Message], bytes], tasks: set[asyncio.Task[None]]
) -> Callable[[Message], None]:
    """Make a callback that answers each request from a task, kept in `tasks` while it runs."""

    def on_message(message: Message) -> None:
        assert message.reply_to is not None
        reply = Message(message.reply_to, answer(message), message.headers)
        task = asyncio.create_task(transport.publish(reply))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return on_message


class RequestContract(TransportSuite):
    """Requests."""

    async def test_request_returns_the_reply(self) -> None:
        """A request returns body and headers of the reply, and its message then names the reply token."""
        caller, service, seen = await self.connect("request"), await self.connect(), Collector[Message]()
        tasks: set[asyncio.Task[None]] = set()
        subject = f"rpc.{unique()}.a"

        def answer(message: Message) -> bytes:
            seen(message)
            return message.body.upper()

        await service.subscribe(subject, replier(service, answer, tasks), queue="q")
        message = Message(subject, b"hello", UNICODE)
        reply = await caller.request(message, TIMEOUT_S)
        assert (reply.body, dict(reply.headers or {})) == (b"HELLO", UNICODE)
        assert type(reply.body) is bytes
        assert message.reply_to is not None
        assert message.reply_to == seen.items[0].reply_to

    async def test_request_fails_at_once_when_nobody_listens(self) -> None:
        """Where nobody listens a request fails with NoHandler long before its time is over."""
        caller, tasks = await self.connect("request"), set[asyncio.Task[None]]()
        subject = f"rpc.{unique()}.a"
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(NoHandler):
                await caller.request(Message(subject), 3600)
        subscription = await caller.subscribe(subject, replier(caller, lambda message: b"", tasks))
        await caller.request(Message(subject), TIMEOUT_S)
        await settle(caller, (caller, subscription))
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(NoHandler):
                await caller.request(Message(subject), 3600)

    async def test_requests_get_their_own_replies_when_concurrent(self) -> None:
        """However many requests wait, each gets the reply to itself."""
        caller, services = await self.connect("request"), [await self.connect() for _ in range(2)]
        tasks: set[asyncio.Task[None]] = set()
        subject = f"rpc.{unique()}.a"
        for service in services:
            await service.subscribe(subject, replier(service, lambda message: b"re:" + message.body, tasks), queue="q")
        replies = await asyncio.gather(*(caller.request(Message(subject, b"%d" % n), TIMEOUT_S) for n in range(200)))
        assert [each.body for each in replies] == [b"re:%d" % n for n in range(200)]

    async def test_request_runs_once_when_members_share_a_queue(self) -> None:
        """One member of the queue group gets each request."""
        caller, seen = await self.connect("request", "queue_groups"), Collector[Message]()
        tasks: set[asyncio.Task[None]] = set()
        subject, listening = f"rpc.{unique()}.a", []

        def answer(message: Message) -> bytes:
            seen(message)
            return message.body

        for _ in range(3):
            service = await self.connect()
            listening.append((service, await service.subscribe(subject, replier(service, answer, tasks), queue="q")))
        for number in range(30):
            await caller.request(Message(subject, b"%d" % number), TIMEOUT_S)
        await settle(caller, *listening)
        assert [int(each.body) for each in seen.items] == list(range(30))

    async def test_request_returns_the_first_reply_when_there_are_two(self) -> None:
        """A second reply to one request is ignored, also by the next request."""
        caller, seen, subject = await self.connect("request"), Collector[Message](), f"rpc.{unique()}.a"
        await caller.subscribe(subject, seen)
        for number in range(3):
            request = asyncio.create_task(caller.request(Message(subject), TIMEOUT_S))
            token = (await seen.at_least(number + 1))[number].reply_to
            assert token is not None
            await caller.publish(Message(token, b"first %d" % number))
            await caller.publish(Message(token, b"second %d" % number))
            assert (await request).body == b"first %d" % number

    async def test_request_fails_when_its_time_is_over(self) -> None:
        """Without a reply in time a request fails with DeadlineExceeded, and a late reply harms nobody."""
        caller, seen, subject = await self.connect("request"), Collector[Message](), f"rpc.{unique()}.a"
        await caller.subscribe(subject, seen)
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(DeadlineExceeded):
                await caller.request(Message(subject, b"slow"), 0.1)
        await self._answer_late_and_again(caller, seen, subject)

    async def test_request_times_out_in_its_own_time_when_others_have_longer(self) -> None:
        """A short deadline holds however many longer ones were given before it, and theirs still hold after."""
        caller, seen, subject = await self.connect("request"), Collector[Message](), f"rpc.{unique()}.a"
        await caller.subscribe(subject, seen)
        long = asyncio.create_task(caller.request(Message(subject, b"long"), 3600))
        await seen.at_least(1)
        middle = asyncio.create_task(caller.request(Message(subject), 0.3))
        await seen.at_least(2)
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(DeadlineExceeded):
                await caller.request(Message(subject), 0.1)
            with pytest.raises(DeadlineExceeded):
                await middle
        assert not long.done()
        token = (await seen.until(lambda message: message.body == b"long")).reply_to
        assert token is not None
        await caller.publish(Message(token, b"in time"))
        async with asyncio.timeout(TIMEOUT_S):
            assert (await long).body == b"in time"

    async def test_request_can_be_cancelled(self) -> None:
        """Cancelling the task cancels the request, and a late reply harms nobody."""
        caller, seen, subject = await self.connect("request"), Collector[Message](), f"rpc.{unique()}.a"
        await caller.subscribe(subject, seen)
        request = asyncio.create_task(caller.request(Message(subject, b"slow"), TIMEOUT_S))
        await seen.at_least(1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await self._answer_late_and_again(caller, seen, subject)

    async def test_request_fails_when_its_transport_closes(self) -> None:
        """A request that waits when its transport is closed fails with ConnectionError and does not hang."""
        service, caller, seen = await self.connect("request"), await self.connect(), Collector[Message]()
        subject = f"rpc.{unique()}.a"
        await service.subscribe(subject, seen)
        request = asyncio.create_task(caller.request(Message(subject), 3600))
        await seen.at_least(1)
        await caller.close()
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(ConnectionError):
                await request

    async def _answer_late_and_again(self, caller: Transport, seen: Collector[Message], subject: str) -> None:
        token = (await seen.at_least(1))[0].reply_to
        assert token is not None
        await caller.publish(Message(token, b"late"))
        request = asyncio.create_task(caller.request(Message(subject, b"next"), TIMEOUT_S))
        token = (await seen.at_least(2))[1].reply_to
        assert token is not None
        await caller.publish(Message(token, b"prompt"))
        assert (await request).body == b"prompt"
