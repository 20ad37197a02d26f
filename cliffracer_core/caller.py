"""Calls and publishes: one compiled chain out for calls and one for publishes.

payload -> observe -> guard -> shape -> encode -> transport
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

import msgspec

from .context import create_correlation_id, current_context, get_correlation_id
from .dispatch import sort_layers
from .errors import (
    CliffracerError,
    ConfigurationError,
    DeadlineExceeded,
    ErrorBody,
    NotStored,
    RPCError,
    from_body,
)
from .interfaces import DurableTransport, Middleware, Outgoing, OutgoingDeclaration, Send, Transport
from .messages import (
    CODECS,
    CONTENT_TYPE,
    CORRELATION_ID,
    IDEMPOTENCY_KEY,
    JSON,
    SERVICE_ERROR,
    SERVICE_ERROR_CODE,
    TIMEOUT_MS,
    Codec,
    Message,
    codec_for,
)
from .requests import cancel_subject
from .subjects import stream_name, validate_subject, validate_token
from .validation import validate_timeout

__all__ = ["Caller"]

_error_body = msgspec.json.Decoder(ErrorBody).decode


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

        Raises:
            NotStored: the broker did not confirm in time; a retry under the same `message_id` is safe.
            EncodingError, MessageTooLarge, InvalidSubject, InvalidHeader: nothing was sent.
            ConnectionError: not connected, and the buffer is full.
        """
        outgoing = Outgoing(
            kind="publish", service=self._service, subject=validate_subject(subject), payload=payload,
            headers=self._outgoing_headers(headers), transport=transport, durable=durable, stream=stream,
            message_id=message_id,
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
            raise _own_deadline(outgoing, _remote_error(outgoing.subject, reply))
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


def _remote_error(subject: str, reply: Message) -> CliffracerError:
    headers = reply.headers or {}
    try:
        body = _error_body(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = headers.get(SERVICE_ERROR) or "error"
        code = headers.get(SERVICE_ERROR_CODE, "")
        status = int(code) if re.fullmatch("[0-9]{1,9}", code) else 500
        body = ErrorBody(RPCError.code, f"{subject} answered: {text}", status)
        body.details = {"code": code}
    if body.service is None:
        body.service = subject.split(".")[1]
    return from_body(body)
