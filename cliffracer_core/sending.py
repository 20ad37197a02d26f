"""What leaves a service: one request with its reply, one event; the innermost step of both chains out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from .context import chosen_correlation_id, create_correlation_id, running_call
from .errors import CliffracerError, ConfigurationError, DeadlineExceeded, NotStored, RPCError
from .interfaces import DurableTransport, Outgoing, Transport
from .messages import (
    CODECS,
    CONTENT_TYPE,
    CORRELATION_ID,
    IDEMPOTENCY_KEY,
    JSON,
    TIMEOUT_MS,
    TRACEPARENT,
    Codec,
    Message,
    SharedHeaders,
    codec_for,
)
from .replies import is_error, remote_error
from .requests import cancel_subject
from .subjects import stream_name
from .validation import validate_timeout

__all__ = ["Sender"]


class Sender:
    """Encode, send and decode, on behalf of one service.

    Args:
        transports: by name, one of them `default`.
        timeout_s: the time a call has where nobody says otherwise.
        content_type: how payloads are encoded.
    """

    def __init__(self, transports: Mapping[str, Transport], timeout_s: float, content_type: str) -> None:
        codec = CODECS.get(content_type)
        if codec is None:
            raise ConfigurationError(f"setting 'content_type' is {content_type!r}; use one of {', '.join(CODECS)}")
        self.timeout_s = timeout_s
        self._timeout_ms = _milliseconds(timeout_s)
        self._transports = transports
        self.encode = codec.encode
        self.encode_quickly = codec.encode_quickly
        """As `encode`, but with msgspec's own errors, and NaN and infinity as null."""
        self._headers = {} if codec is JSON else {CONTENT_TYPE: content_type}
        self.plain: Mapping[str, str] | None = self._headers or None
        """The headers of an event outside any call."""
        self.usual = SharedHeaders({**self._headers, TIMEOUT_MS: self._timeout_ms})
        """The headers of a call outside any other."""
        self.decoder = functools.lru_cache(1024)(Codec.decoder)
        """Gives the decoder of a codec and type."""
        self._json_decoder = functools.lru_cache(1024)(_json_decoder)

    def transport(self, name: str) -> Transport:
        """Return one of the transports. Raises ConfigurationError for a name that is not configured."""
        try:
            return self._transports[name]
        except KeyError:
            raise ConfigurationError(
                f"transport {name!r} is not configured; known are {sorted(self._transports)}: set transport={{...}}"
            ) from None

    def headers(self, given: Mapping[str, str] | None) -> dict[str, str]:
        """Return what every message carries, and what is given for this one."""
        sent = {**self._headers, **given} if given else self._headers.copy()
        correlation_id = chosen_correlation_id()
        running = running_call()
        if running is not None:
            if correlation_id is None:
                correlation_id = running.correlation_id
            if TRACEPARENT in running.headers and TRACEPARENT not in sent:
                sent[TRACEPARENT] = running.headers[TRACEPARENT]
        if correlation_id is not None and CORRELATION_ID not in sent:
            sent[CORRELATION_ID] = correlation_id
        return sent

    def prepare(
        self, subject: str, timeout: float | None, given: Mapping[str, str] | None, idempotency_key: str | None
    ) -> tuple[dict[str, str], float, float]:
        """Return the headers of a call, when it must be over, and the seconds until then.

        Raises:
            ValidationError: `timeout` is no number of seconds.
            DeadlineExceeded: the running call, whose deadline holds for those it makes, has no time left.
        """
        if timeout is None:
            left_s, told = self.timeout_s, self._timeout_ms
        else:
            left_s = validate_timeout(timeout)
            told = _milliseconds(left_s)
        now = time.monotonic()
        deadline = now + left_s
        running = running_call()
        if running is not None and running.deadline is not None and running.deadline < deadline:
            deadline = running.deadline
            left_s = deadline - now
            if left_s <= 0:
                raise DeadlineExceeded(f"no time is left to call {subject!r}")
            told = _milliseconds(left_s)
        sent = self.headers(given)
        sent[TIMEOUT_MS] = told
        if idempotency_key is not None:
            sent[IDEMPOTENCY_KEY] = idempotency_key
        return sent, deadline, left_s

    async def exchange(
        self,
        transport: Transport,
        subject: str,
        payload: object,
        headers: Mapping[str, str],
        returns: Any,
        deadline: float,
        left_s: float,
    ) -> Any:
        """Send a request and return its decoded result; errors as `Caller.call`.

        Args:
            transport: opened.
            subject: below `rpc.`.
            payload: anything that can be encoded.
            headers: complete.
            returns: the type to decode the result into; builtins where None.
            deadline: point on `time.monotonic()`.
            left_s: seconds until then.
        """
        try:
            body = self.encode_quickly(payload)
        except Exception:
            body = b"null"  # which the codec looks at, to say in words of ours what is wrong
        if body.find(b"null") >= 0:
            body = self.encode(payload)
        message = Message(subject, body, headers)
        try:
            reply = await transport.request(message, left_s)
        except asyncio.CancelledError:
            await self.give_up(transport, message)
            raise
        if reply.headers is None:
            try:
                return self._json_decoder(returns)(reply.body)
            except Exception:
                pass  # said in words of ours by what follows
        elif is_error(reply):
            raise _own_deadline(subject, deadline, remote_error(subject, reply))
        try:
            codec = codec_for(reply.headers)
            return self.decoder(codec, Any if returns is None else returns)(reply.body or codec.encode(None))
        except CliffracerError as error:
            raise _misfit(subject, error) from error

    async def request(self, outgoing: Outgoing) -> object:
        """Do as `exchange`, as the last step of the chain around calls."""
        deadline = cast(float, outgoing.deadline)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"no time is left to call {outgoing.subject!r}")
        outgoing.headers[TIMEOUT_MS] = _milliseconds(left_s)
        transport = self.transport(outgoing.transport)
        return await self.exchange(
            transport, outgoing.subject, outgoing.payload, outgoing.headers, outgoing.returns, deadline, left_s
        )

    async def give_up(self, transport: Transport, message: Message) -> None:
        """Tell the callee of a request that nobody waits for its reply any more."""
        if message.reply_to is not None:
            try:
                await transport.publish(Message(cancel_subject(message.subject), message.reply_to.encode()))
            except CliffracerError:
                return  # the callee's own deadline ends it

    async def publish(self, outgoing: Outgoing) -> None:
        """Send or store an event, as the last step of the chain around publishes."""
        if outgoing.outbox:
            raise ConfigurationError(f"nobody keeps an outbox for {outgoing.subject!r}; set db.outbox (cliffracer-db)")
        transport = self.transport(outgoing.transport)
        message = Message(outgoing.subject, self.encode(outgoing.payload), outgoing.headers or None)
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


def _json_decoder(type: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(Any if type is None else type).decode


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000) or 1)


def _misfit(subject: str, error: CliffracerError) -> RPCError:
    return RPCError(f"the reply of {subject!r} does not fit what is expected: {error}")


def _own_deadline(subject: str, deadline: float, error: CliffracerError) -> CliffracerError:
    """Say that this call's time is over where its callee, which had to keep to it too, noticed first."""
    ahead_s = 0.002  # the callee was told whole milliseconds, rounded down
    if isinstance(error, DeadlineExceeded) and time.monotonic() >= deadline - ahead_s:
        return DeadlineExceeded(f"no reply on {subject!r} in time: {error.message}")
    return error
