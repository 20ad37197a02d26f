"""`DeadLetter`: one entry of a service's dead-letter stream, as `cliffracer dlq` shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

import msgspec

from cliffracer_core.caller import Caller
from cliffracer_core.deadletters import DEAD, dlq_stream, unpacked
from cliffracer_core.errors import ConfigurationError, NotFoundError, ValidationError
from cliffracer_core.interfaces import DurableTransport
from cliffracer_core.messages import CORRELATION_ID, ORIGINAL_MESSAGE_ID, Message, StoredMessage, codec_for

__all__ = ["DeadLetter", "dead_letters", "durable_transport", "payload_of", "pick"]


class DeadLetter(msgspec.Struct, kw_only=True):
    """An event that its handler gave up; what its headers do not say is None."""

    sequence: int
    handler: str
    subject: str | None
    """The one it was published on."""
    cause: str | None
    attempts: int | None
    """Those before this entry; a redrive counts anew."""
    first_failed_at: str | None
    """ISO 8601, UTC: when the first attempt failed, that before the first redrive."""
    failed_at: str | None
    """When it was given up."""
    correlation_id: str | None
    message_id: str | None
    """The one it was published under."""
    payload_bytes: int
    """Of the event, also where less of it could be kept."""
    final: str | None = None
    """Why it cannot be redriven; None where it can."""


def durable_transport(caller: Caller) -> DurableTransport:
    """Return the transport. Raises ConfigurationError where it keeps no messages, and so no dead letters."""
    transport = caller.transport()
    if not isinstance(transport, DurableTransport) or not transport.capabilities.durable:
        raise ConfigurationError("transport keeps no dead letters; name one that stores messages, such as nats://")
    return transport


async def dead_letters(transport: DurableTransport, service: str) -> AsyncIterator[tuple[DeadLetter, Message]]:
    """Yield a service's dead letters, oldest first; those on their way back to their handler are none any more."""
    async for stored in transport.browse(dlq_stream(service)):
        if stored.message.subject.startswith(f"dlq.{service}."):
            yield _read(stored, service), stored.message


async def pick(
    transport: DurableTransport, service: str, sequences: Collection[int]
) -> list[tuple[DeadLetter, Message]]:
    """Return the dead letters of these numbers, or all of them where there is no number.

    Raises:
        NotFoundError: one of them is not there.
    """
    found = [each async for each in dead_letters(transport, service) if not sequences or each[0].sequence in sequences]
    missing = sorted(set(sequences) - {letter.sequence for letter, _ in found})
    if missing:
        numbers = ", ".join(map(str, missing))
        raise NotFoundError(
            f"service {service!r} has no dead letter {numbers}; list them with 'cliffracer dlq list {service}'"
        )
    return found


def payload_of(message: Message) -> object:
    """Return the decoded payload, or the bytes where they cannot be read as their content type says."""
    body = unpacked(message)
    try:
        decoded: object = codec_for(message.headers).decoder(object)(body) if body else None
    except ValidationError:
        return body
    return decoded


def _read(stored: StoredMessage, service: str) -> DeadLetter:
    headers = stored.message.headers or {}
    attempts, whole = headers.get(DEAD + "Attempts", ""), headers.get(DEAD + "Bytes", "")
    failed_at = headers.get(DEAD + "Failed-At")
    message_id = headers.get(ORIGINAL_MESSAGE_ID)
    return DeadLetter(
        sequence=stored.sequence,
        handler=stored.message.subject.removeprefix(f"dlq.{service}."),
        subject=headers.get(DEAD + "Subject"),
        cause=headers.get(DEAD + "Cause"),
        attempts=int(attempts) if attempts.isdecimal() else None,
        first_failed_at=headers.get(DEAD + "First-Failed-At") or failed_at,
        failed_at=failed_at,
        correlation_id=headers.get(CORRELATION_ID) or message_id,  # as the handler saw it
        message_id=message_id,
        payload_bytes=int(whole) if whole.isdecimal() else len(stored.message.body),
        final=headers.get(DEAD + "Final"),
    )
