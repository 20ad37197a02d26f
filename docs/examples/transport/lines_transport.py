"""The transport `lines://host:port`, and the plugin that offers it."""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lines_broker import MAX_BODY, Frame
from lines_client import Client, Listening

from cliffracer_core import ConnectionError, DeadlineExceeded, MessageTooLarge, NoHandler, hookimpl
from cliffracer_core.interfaces import Capabilities, TransportFactory
from cliffracer_core.messages import Message, validate_headers
from cliffracer_core.subjects import validate_pattern, validate_subject


class Lines:
    capabilities = Capabilities(max_payload=MAX_BODY)  # all there are, but durable

    def __init__(self, url: str) -> None:
        self.url, self.inbox, self.numbers = url, f"_INBOX.{uuid.uuid4().hex}", itertools.count()
        self.waiting: dict[str, asyncio.Future[Message | None]] = {}  # requests, by reply subject
        self.client = Client(url, lambda subject: self.settle(subject, None), self.disconnected)

    @property
    def connected(self) -> bool:
        return self.client.connected

    async def open(self) -> None:
        await self.wrap(asyncio.wait_for(self.client.connect(), 5))
        await self.subscribe(f"{self.inbox}.*", lambda reply: self.settle(reply.subject, reply))

    async def close(self) -> None:
        await self.client.close()

    async def flush(self) -> None:
        await self.wrap(self.client.ping())

    async def publish(self, message: Message) -> None:
        check(message)
        await self.wrap(self.client.send(Frame("publish", message=message)))

    async def request(self, message: Message, timeout_s: float) -> Message:
        message.reply_to = f"{self.inbox}.{next(self.numbers)}"
        check(message)
        future = self.waiting[message.reply_to] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self.wrap(self.client.send(Frame("request", message=message)))
                reply: Message | None = await future
        except TimeoutError:
            raise DeadlineExceeded(f"request on {message.subject!r}: no reply within {timeout_s:g} s") from None
        finally:
            self.waiting.pop(message.reply_to, None)
        if reply is None:
            raise NoHandler(f"nobody listens on {message.subject!r}; start the service, or check the name")
        return reply

    async def subscribe(
        self, pattern: str, on_message: Callable[[Message], None], *, queue: str | None = None
    ) -> Listening:
        validate_pattern(pattern)
        if queue is not None:
            validate_subject(queue)
        listening: Listening = await self.wrap(self.client.subscribe(pattern, on_message, queue))
        return listening

    def settle(self, subject: str, reply: Message | None) -> None:
        future = self.waiting.pop(subject, None)  # none where the reply is late, or a second one
        if future is not None and not future.done():
            future.set_result(reply)

    def disconnected(self) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(f"transport {self.url!r} was disconnected; send again"))

    async def wrap(self, awaitable: Awaitable[Any]) -> Any:
        try:
            return await awaitable
        except OSError as error:  # which a TimeoutError is too
            raise ConnectionError(f"transport {self.url!r} is not connected; start lines_broker.py") from error


def check(message: Message) -> None:
    for subject in (message.subject, message.reply_to):
        if subject is not None:
            validate_subject(subject)
    validate_headers(message.headers or {})
    if len(message.body) > MAX_BODY:
        raise MessageTooLarge(f"body of {len(message.body)} bytes on {message.subject!r} exceeds {MAX_BODY}; send less")


@hookimpl
def cliffracer_register_transports() -> Sequence[TransportFactory]:
    return [TransportFactory(schemes=["lines"], create=lambda url, service: Lines(url))]
