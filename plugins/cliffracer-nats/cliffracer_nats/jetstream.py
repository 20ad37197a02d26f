"""`JetStream`: questions to the JetStream API, as typed JSON. Source: ADR-1, "JetStream JSON API"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cliffracer_core.errors import CliffracerError, ConnectionError, DeadlineExceeded, NoHandler
from cliffracer_core.messages import Message

from .wire import Wire

__all__ = ["NANOSECONDS", "JetStream", "JetStreamError", "JetStreamUnavailable", "PubAck"]

NANOSECONDS = 1_000_000_000
_ATTEMPT_S = 2.0

CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
SEQUENCE_NOT_FOUND = 10043
STREAM_NOT_FOUND = 10059
STREAM_MISMATCH = 10060
STREAM_OVERLAP = 10065
WRONG_LAST_SEQUENCE = 10071


class JetStreamError(CliffracerError):
    """JetStream refused; `err_code` is its own number for the reason."""

    def __init__(self, message: str, err_code: int = 0) -> None:
        super().__init__(message)
        self.err_code = err_code


class JetStreamUnavailable(ConnectionError):
    """JetStream, or the thing asked about, is not there just now."""


class _Refusal(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Refusal | None = None


class PubAck(msgspec.Struct):
    """JetStream's word that it stored a message."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Refusal | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_ack = msgspec.json.Decoder(PubAck).decode


class JetStream:
    """Ask `$JS.API` over a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.settings = wire.connection.settings

    async def ask(self, what: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Ask one question, such as `STREAM.INFO.ORDER`, and return the answer as it came.

        Raises:
            JetStreamError: refused, with JetStream's number.
            JetStreamUnavailable: nobody answers there.
            ConnectionError: no answer within `jetstream_timeout_s` seconds.
        """
        message = Message(f"$JS.API.{what}", msgspec.json.encode(body) if body is not None else b"")
        limit = self.settings.jetstream_timeout_s
        try:
            try:  # asked twice where that changes nothing: a question is lost with its connection
                once = limit if what.startswith("STREAM.MSG.DELETE") else min(limit, _ATTEMPT_S)
                reply = await self.wire.request(message, once)
            except DeadlineExceeded:
                if once >= limit:
                    raise
                reply = await self.wire.request(message, limit - once)
        except NoHandler as error:
            raise JetStreamUnavailable(
                f"{self.wire.connection.label}: JetStream is not there to answer {what!r}; start nats-server with -js"
            ) from error
        except DeadlineExceeded as error:
            raise ConnectionError(
                f"{self.wire.connection.label}: JetStream has not answered {what!r} "
                f"within {limit:g} s; is the server up"
            ) from error
        refusal = _decode_answer(reply.body).error
        if refusal is not None:
            raise JetStreamError(f"JetStream refused {what!r}: {refusal.description}", refusal.err_code)
        answer: dict[str, Any] = msgspec.json.decode(reply.body)
        return answer

    async def available(self) -> bool:
        """Tell whether the server, and this account, has JetStream."""
        if not self.wire.connection.live().server_info.get("jetstream"):
            return False
        try:
            await self.ask("INFO")
        except (JetStreamError, JetStreamUnavailable):
            return False
        return True

    async def store(self, message: Message, timeout_s: float) -> PubAck:
        """Publish once and return the confirmation.

        Raises:
            JetStreamError: refused, with JetStream's number.
            NoHandler: no stream takes the subject.
            DeadlineExceeded, ConnectionError: unknown whether it is stored.
        """
        reply = await self.wire.request(message, timeout_s)
        try:
            ack = _decode_ack(reply.body)
        except msgspec.MsgspecError as error:
            raise JetStreamError(f"something else than a stream answered on {message.subject!r}") from error
        if ack.error is not None:
            raise JetStreamError(ack.error.description, ack.error.err_code)
        if not ack.stream:
            raise JetStreamError(f"something else than a stream answered on {message.subject!r}")
        return ack
