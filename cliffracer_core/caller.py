"""Calls and publishes: one compiled chain out for calls and one for publishes.

payload -> observe -> guard -> shape -> encode -> transport
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from .context import create_correlation_id, current_context, get_correlation_id
from .dispatch import sort_layers
from .errors import (
    CliffracerError,
    ConfigurationError,
    DeadlineExceeded,
    NoHandler,
    NotStored,
    RPCError,
    ValidationError,
)
from .inbox import Inbox
from .interfaces import DurableTransport, Middleware, Outgoing, OutgoingDeclaration, Send, Transport
from .messages import (
    CODECS,
    CONTENT_TYPE,
    CORRELATION_ID,
    IDEMPOTENCY_KEY,
    JSON,
    REPLY_ALL_TO,
    SERVICE_ERROR,
    SERVICE_ERROR_CODE,
    TIMEOUT_MS,
    Codec,
    Message,
    codec_for,
)
from .replies import read_reply, remote_error
from .requests import cancel_subject
from .scatter import ReplicaReply, all_subject, gather
from .stream_in import DEFAULT_WINDOW, Accepted, Inbound, not_a_stream, validate_window
from .subjects import stream_name, validate_subject, validate_token
from .validation import validate_timeout

__all__ = ["Caller"]


class Caller:
    """Send on behalf of one service, or of a script.

    Args:
        service: who sends, for errors and middleware.
        transports: by name, one of them `default`.
        timeout_s: the time a call has where nobody says otherwise.
        content_type: how payloads are encoded.
        ask: gives the outgoing layers that plugins registered for a kind.
    """

    def __init__(
        self,
        service: str,
        transports: Mapping[str, Transport],
        *,
        timeout_s: float,
        content_type: str = JSON.content_type,
        ask: Callable[[OutgoingDeclaration], Iterable[tuple[str, Middleware]]] = lambda declaration: (),
    ) -> None:
        codec = CODECS.get(content_type)
        if codec is None:
            raise ConfigurationError(f"setting 'content_type' is {content_type!r}; use one of {', '.join(CODECS)}")
        self._codec: Codec = codec
        self._service = service
        self._transports = transports
        self._timeout_s = timeout_s
        self._headers = {} if codec is JSON else {CONTENT_TYPE: content_type}
        self._call, self.call_layers = self._compile("call", self._request, ask)
        self._publish, self.publish_layers = self._compile("publish", self._send, ask)
        self._inboxes: dict[str, Inbox] = {}
        self._subject = functools.lru_cache(4096)(_request_subject)
        self._decoder = functools.lru_cache(1024)(Codec.decoder)

    def _compile(
        self, kind: Any, step: Send, ask: Callable[[OutgoingDeclaration], Iterable[tuple[str, Middleware]]]
    ) -> tuple[Send, list[str]]:
        layers = sort_layers(list(ask(OutgoingDeclaration(self._service, kind))))
        for layer in reversed(layers):
            step = layer.wrap(step)
        return step, [f"{layer.stage} {layer.name}" for layer in layers]

    def call(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        transport: str = "default",
    ) -> Coroutine[Any, Any, Any]:
        """Call `method` of `service` and return its result.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: a mapping of the named arguments, or a Struct or dataclass with such fields.
            returns: the type to decode the result into; builtins where None.
            timeout: seconds; the service's default where None, never more than the running call has left.
            headers: sent along.
            idempotency_key: lets the service recognise a repeated call.
            transport: which of the service's transports.

        Raises:
            NoHandler: nobody serves it; at once. A retry helps once someone does.
            DeadlineExceeded: the time ran out; the callee is cancelled too.
            Overloaded: the callee is at its limit; a retry helps later.
            ValidationError: the callee refused an argument.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
            RPCError: any other failure of the callee; its own errors under their class where it is known here.
        """
        return self.request(
            self._subject(service, method), {} if arguments is None else arguments, returns=returns,
            timeout=timeout, headers=headers, idempotency_key=idempotency_key, transport=transport,
        )  # fmt: skip

    async def request(
        self,
        subject: str,
        payload: object,
        *,
        returns: Any = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        transport: str = "default",
    ) -> Any:
        """Send a request on a full subject below `rpc.`; otherwise as `call`."""
        seconds = self._timeout_s if timeout is None else validate_timeout(timeout)
        deadline = time.monotonic() + seconds
        sent = self._outgoing_headers(headers)
        if idempotency_key is not None:
            sent[IDEMPOTENCY_KEY] = idempotency_key
        running = current_context()
        if running is not None and running.deadline is not None and running.deadline < deadline:
            deadline = running.deadline
        outgoing = Outgoing(
            kind="call", service=self._service, subject=subject, payload=payload, headers=sent,
            deadline=deadline, returns=returns, transport=transport,
        )  # fmt: skip
        return await self._call(outgoing)

    def stream(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        timeout: float | None = None,
        window: int = DEFAULT_WINDOW,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> AsyncGenerator[Any, None]:
        """Call a `method` that streams its reply: `async for item in caller.stream("users", "export")`.

        The call begins with the first item asked for. Leaving the loop ends it at the callee, too, once
        the iterator is closed or no longer held; `contextlib.aclosing` does that at a certain point.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: as `call`.
            returns: the type to decode each item into; builtins where None.
            timeout: seconds between two items, and until the first one; the service's default where None.
            window: items the callee may be ahead; it waits there until some are taken.
            headers: sent along with the request.
            transport: which of the service's transports.

        Raises:
            DeadlineExceeded: there was no item in time; the callee is cancelled too.
            ConnectionError: an item was lost on the way. A retry starts anew.
            Overloaded: the callee's service stops, or is at its limit; a retry helps later.
            CliffracerError: any other error of `call`, before the first item or between two.
        """
        return self.request_stream(
            self._subject(service, method), {} if arguments is None else arguments, returns=returns,
            timeout=timeout, window=window, headers=headers, transport=transport,
        )  # fmt: skip

    async def request_stream(
        self,
        subject: str,
        payload: object,
        *,
        returns: Any = None,
        timeout: float | None = None,
        window: int = DEFAULT_WINDOW,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> AsyncGenerator[Any, None]:
        """Send a request on a full subject below `rpc.`; otherwise as `stream`."""
        gap_s = self._timeout_s if timeout is None else validate_timeout(timeout)
        validate_window(window)
        box = await self._inbox(transport).open()
        stream = Inbound(box, self.transport(transport), subject, window=window, gap_s=gap_s)
        try:
            try:
                accepted = await self.request(
                    subject, payload, returns=Accepted, timeout=gap_s, headers={**(headers or {}), **stream.headers},
                    transport=transport,
                )  # fmt: skip
            except RPCError as error:
                raise not_a_stream(subject, error) from error.__cause__
            stream.begin(accepted)
            while (item := await stream.next()) is not None:
                yield read_reply(subject, item, returns, self._decoder)
        finally:
            await stream.close()

    async def call_all(
        self,
        service: str,
        method: str,
        arguments: object = None,
        *,
        returns: Any = None,
        count: int | None = None,
        quiet_s: float | None = 0.25,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        transport: str = "default",
    ) -> list[ReplicaReply]:
        """Call `method` at every replica of `service`, and collect what they answer.

        Args:
            service: the service's name.
            method: the handler's name.
            arguments: as `call`.
            returns: the type to decode each value into; builtins where None.
            count: replies after which to stop; as many as come where None.
            quiet_s: seconds without a further reply after which to stop, from the first reply on; None
                waits for `count` or the deadline.
            timeout: seconds in all; the service's default where None.
            headers: sent along.
            transport: which of the service's transports.

        Returns:
            The replies in the order they came; each with the replica's id, and its value or its error.
            A replica that had not answered when it stopped is cancelled.

        Raises:
            NoHandler: no replica listens; at once.
            DeadlineExceeded: there are replicas, and none answered in time.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
        """
        self._subject(service, method)  # for its checks
        if count is not None and count < 1:
            raise ValidationError(f"count {count!r} is not a number of replies above 0")
        seconds = self._timeout_s if timeout is None else validate_timeout(timeout)
        deadline = min(time.monotonic() + seconds, getattr(current_context(), "deadline", None) or math.inf)
        subject = all_subject(service, method)
        box = await self._inbox(transport).open()
        expired = False
        try:
            await self.request(
                subject, {} if arguments is None else arguments, timeout=seconds,
                headers={**(headers or {}), REPLY_ALL_TO: box.address}, transport=transport,
            )  # fmt: skip
            read = functools.partial(read_reply, subject, returns=returns, decoder=self._decoder)
            replies, expired = await gather(box, read, count=count, quiet_s=quiet_s, deadline=deadline)
        except NoHandler:
            expired = True  # nobody is there to be told
            raise
        finally:
            box.close()
            if not expired:
                await self._give_up(self.transport(transport), Message(subject, reply_to=box.address))
        if not replies:
            raise DeadlineExceeded(f"no replica answered {subject!r} within {seconds:g} s; raise the timeout")
        return replies

    def _inbox(self, transport: str) -> Inbox:
        inbox = self._inboxes.get(transport)
        if inbox is None:
            inbox = self._inboxes[transport] = Inbox(self.transport(transport))
        return inbox

    async def publish(
        self,
        subject: str,
        payload: object,
        *,
        durable: bool = False,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        stream: str | None = None,
        timeout: float | None = None,
        transport: str = "default",
        outbox: bool | str = False,
    ) -> None:
        """Publish an event.

        Args:
            subject: without wildcards.
            payload: anything that can be encoded.
            durable: return only when the broker has confirmed that it is stored.
            headers: sent along.
            message_id: the same id within two minutes is stored once; only with `durable`.
            stream: the stream to create where none takes the subject yet; by the subject's first token where None.
            timeout: seconds to wait for the broker's confirmation.
            transport: which of the service's transports.
            outbox: write it down with the running database transaction, and send it once that is committed;
                a text instead of True orders events that have the same. Needs a plugin, such as cliffracer-db.

        Raises:
            ConfigurationError: no plugin keeps an outbox.
            NotStored: the broker did not confirm in time; a retry under the same `message_id` is safe.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
            ConnectionError: not connected, and the buffer is full.
        """
        outgoing = Outgoing(
            kind="publish", service=self._service, subject=validate_subject(subject), payload=payload,
            headers=self._outgoing_headers(headers), transport=transport, durable=durable, stream=stream,
            message_id=message_id, outbox=outbox,
            deadline=time.monotonic() + (self._timeout_s if timeout is None else validate_timeout(timeout)),
        )  # fmt: skip
        await self._publish(outgoing)

    def _outgoing_headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        sent = {**self._headers, **headers} if headers else dict(self._headers)
        correlation_id = get_correlation_id()
        if correlation_id is not None and CORRELATION_ID not in sent:
            sent[CORRELATION_ID] = correlation_id
        return sent

    def transport(self, name: str = "default") -> Transport:
        """Return one of the transports, opened. Raises ConfigurationError for a name that is not configured."""
        try:
            return self._transports[name]
        except KeyError:
            raise ConfigurationError(
                f"transport {name!r} is not configured; known are {sorted(self._transports)}: set transport={{...}}"
            ) from None

    async def _request(self, outgoing: Outgoing) -> object:
        transport = self.transport(outgoing.transport)
        left_s = cast(float, outgoing.deadline) - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"no time is left to call {outgoing.subject!r}")
        outgoing.headers[TIMEOUT_MS] = str(max(1, int(left_s * 1000)))
        message = Message(outgoing.subject, self._codec.encode(outgoing.payload), outgoing.headers)
        try:
            reply = await transport.request(message, left_s)
        except asyncio.CancelledError:
            await self._give_up(transport, message)
            raise
        headers = reply.headers
        if headers and (SERVICE_ERROR in headers or SERVICE_ERROR_CODE in headers):
            raise _own_deadline(outgoing, remote_error(outgoing.subject, reply))
        try:
            codec = codec_for(headers)
            decode = self._decoder(codec, Any if outgoing.returns is None else outgoing.returns)
            return decode(reply.body or codec.encode(None))
        except CliffracerError as error:
            raise RPCError(f"the reply of {outgoing.subject!r} does not fit what is expected: {error}") from error

    async def _give_up(self, transport: Transport, message: Message) -> None:
        if message.reply_to is not None:
            try:
                await transport.publish(Message(cancel_subject(message.subject), message.reply_to.encode()))
            except CliffracerError:
                return  # the callee's own deadline ends it

    async def _send(self, outgoing: Outgoing) -> None:
        if outgoing.outbox:
            raise ConfigurationError(f"nobody keeps an outbox for {outgoing.subject!r}; set db.outbox (cliffracer-db)")
        transport = self.transport(outgoing.transport)
        message = Message(outgoing.subject, self._codec.encode(outgoing.payload), outgoing.headers or None)
        if not outgoing.durable:
            await transport.publish(message)
            return
        if not isinstance(transport, DurableTransport) or not transport.capabilities.durable:
            raise NotStored(
                f"transport {outgoing.transport!r} cannot store {outgoing.subject!r}; publish without durable=True, "
                f"or use a transport that can (for NATS, a server with JetStream)"
            )
        await transport.publish_durable(
            message,
            stream=outgoing.stream or stream_name(outgoing.subject),
            message_id=outgoing.message_id or create_correlation_id(),
            timeout_s=max(0.001, cast(float, outgoing.deadline) - time.monotonic()),
        )


def _own_deadline(outgoing: Outgoing, error: CliffracerError) -> CliffracerError:
    """Say that this call's time is over where its callee, which had to keep to it too, noticed first."""
    ahead_s = 0.002  # the callee was told whole milliseconds, rounded down
    if isinstance(error, DeadlineExceeded) and time.monotonic() >= cast(float, outgoing.deadline) - ahead_s:
        return DeadlineExceeded(f"no reply on {outgoing.subject!r} in time: {error.message}")
    return error


def _request_subject(service: str, method: str) -> str:
    return f"rpc.{validate_token(service, 'service')}.{validate_token(method, 'method')}"
