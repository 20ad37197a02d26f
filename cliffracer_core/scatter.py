"""One request to every replica of a service, and their replies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from .compiled import Handler
from .errors import CliffracerError, NoHandler, describe, to_body
from .inbox import Box
from .interfaces import Transport
from .messages import CORRELATION_ID, INSTANCE, REPLY_ALL_TO, Message
from .requests import ALL, RequestEndpoint, error_message
from .scope import Scope

__all__ = ["Everyone", "ReplicaReply", "all_subject", "gather"]

logger = logging.getLogger("cliffracer")


class ReplicaReply(msgspec.Struct, frozen=True, eq=False):
    """What one replica answered: a value, or the error it raised."""

    instance: str
    """The replica's instance id; empty where what answered gives none."""
    value: Any = None
    error: CliffracerError | None = None

    def result(self) -> Any:
        """Return the value. Raises the error where there is one."""
        if self.error is not None:
            raise self.error
        return self.value


def all_subject(service: str, method: str) -> str:
    """Return the subject that every replica of a service hears: `rpc.<service>.$all.<method>`."""
    return f"rpc.{service}.{ALL}.{method}"


async def gather(
    box: Box, read: Callable[[Message], Any], *, count: int | None, quiet_s: float | None, deadline: float
) -> tuple[list[ReplicaReply], bool]:
    """Collect replies until there are `count`, or none came for `quiet_s` after one, or the deadline has come.

    Returns:
        The replies in the order they came, and whether the deadline was what ended it.
    """
    replies: list[ReplicaReply] = []
    while count is None or len(replies) < count:
        left_s = deadline - time.monotonic()
        quiet = bool(replies) and quiet_s is not None and quiet_s < left_s
        try:
            message = await box.get(quiet_s if quiet and quiet_s is not None else max(0.0, left_s))
        except TimeoutError:
            return replies, not quiet
        instance = (message.headers or {}).get(INSTANCE, "")
        try:
            replies.append(ReplicaReply(instance, read(message)))
        except CliffracerError as error:
            replies.append(ReplicaReply(instance, error=error))
    return replies, False


class Everyone:
    """Answer, at one replica, the requests that are for all of them.

    Args:
        scope: the running service.
        transport: what to answer on.
        instance: the replica's id, which each reply names.
    """

    def __init__(self, scope: Scope, transport: Transport, instance: str) -> None:
        self._scope = scope
        self._transport = _Signed(transport, instance)
        self._endpoints: dict[str, RequestEndpoint] = {}
        self.pattern = all_subject(scope.service, "*")

    def add(self, handler: Handler, *, timeout_s: float, queue_size: int) -> None:
        """Answer for a handler, under its own name and its own limits."""
        name = handler.declaration.name
        subject = all_subject(self._scope.service, name)
        self._endpoints[name] = RequestEndpoint(
            handler, self._transport, subject, timeout_s=timeout_s, queue_size=queue_size
        )

    def on_message(self, message: Message) -> None:
        """Take a request from the transport; never blocks."""
        headers = message.headers or {}
        if REPLY_ALL_TO in headers:
            if message.reply_to is not None:  # this tells the caller that somebody is there
                self._scope.spawn(self._publish(Message(message.reply_to)))
            message.reply_to = headers[REPLY_ALL_TO]
        endpoint = self._endpoints.get(message.subject.rpartition(".")[2])
        if endpoint is not None:
            endpoint.on_message(message)
        elif message.reply_to is not None:
            error = NoHandler(f"nobody answers {message.subject!r} for all replicas; check the method's name")
            body = to_body(error, self._scope.service, headers.get(CORRELATION_ID))
            self._scope.spawn(self._publish(error_message(message.reply_to, body)))

    async def _publish(self, message: Message) -> None:
        try:
            await self._transport.publish(message)
        except CliffracerError as error:
            logger.warning("service %r: a reply could not be sent: %s", self._scope.service, describe(error))


class _Signed:
    """Publish with the id of this instance in a header."""

    def __init__(self, transport: Transport, instance: str) -> None:
        self._transport = transport
        self._headers = {INSTANCE: instance}

    async def publish(self, message: Message) -> None:
        message.headers = {**(message.headers or {}), **self._headers}
        await self._transport.publish(message)
