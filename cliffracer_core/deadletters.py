"""Dead letters: events that their handler could not handle, stored with why, and sent to it again."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping

from .compiled import Handler
from .errors import ConflictError, InvalidHeader, MessageTooLarge, NotFoundError
from .interfaces import DurableTransport
from .messages import CREDENTIAL_HEADERS, ORIGINAL_MESSAGE_ID, Message, validate_headers

__all__ = ["DEAD", "dead_letter", "dlq_stream", "first_subject", "redrive", "unpacked", "utc_now"]

logger = logging.getLogger("cliffracer")

DEAD = "X-Dead-Letter-"
"""Prefix of the headers that say why: Cause, Attempts, Handler, Subject, Failed-At and First-Failed-At (ISO 8601);
where the body is not as it was, Bytes, its size before, and Encoding; where it cannot be redriven, Final, why."""
PUBLISH_TIMEOUT_S = 5.0
_DEFLATE = "deflate"  # RFC 1950, as in HTTP
_LARGEST = 64 * 1024 * 1024  # what NATS can be made to take at most
_NO_HEADERS: dict[str, str] = {}


def dlq_stream(service: str) -> str:
    """Name a service's dead-letter stream; it holds `dlq.<service>.<handler>` and redriven messages."""
    return f"DLQ_{service}"


async def dead_letter(
    transport: DurableTransport,
    handler: Handler,
    message: Message,
    message_id: str,
    attempts: int,
    cause: str,
    *,
    first_failed_at: str | None = None,
    final: str | None = None,
) -> None:
    """Store a message that its handler could not handle, with why, and without credentials.

    A body that leaves no room for that is stored compressed, and where that does not fit either, half of it.

    Args:
        transport: what stores it.
        handler: which one could not.
        message: as it came.
        message_id: that under which it was published.
        attempts: how many there were.
        cause: the error, as text.
        first_failed_at: when the first attempt failed; now where None.
        final: why it cannot be redriven, where it cannot.

    Raises:
        NotStored: the broker did not confirm; the caller must not give the message up.
    """
    service, name = handler.declaration.service, handler.declaration.name
    headers = _kept_headers(message.headers or _NO_HEADERS)
    headers.setdefault(ORIGINAL_MESSAGE_ID, _header_text(message_id))
    headers[DEAD + "Cause"] = _header_text(cause)
    headers[DEAD + "Attempts"] = str(attempts)
    headers[DEAD + "Handler"] = name
    headers[DEAD + "Subject"] = first_subject(message)
    headers[DEAD + "Failed-At"] = utc_now()
    headers[DEAD + "First-Failed-At"] = _first_failure(message) or first_failed_at or headers[DEAD + "Failed-At"]
    if final is not None:
        headers[DEAD + "Final"] = final
    too_large: MessageTooLarge | None = None
    for body, more in _bodies(message.body):
        try:
            await transport.publish_durable(
                Message(f"dlq.{service}.{name}", body, headers | more),
                stream=dlq_stream(service),
                message_id=_header_text(f"dlq:{service}.{name}:{message_id}"),
                timeout_s=PUBLISH_TIMEOUT_S,
            )
            break
        except MessageTooLarge as error:
            too_large = error
    else:
        assert too_large is not None
        raise too_large
    logger.error("%s: event %s moved to %s: %s", handler.name, message_id, dlq_stream(service), cause)


def _bodies(body: bytes) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yield what to store of a body, and what to say of it; the next one where the broker takes none that large."""
    yield body, {}
    import zlib  # with the first that is too large, not with the kernel

    size = {DEAD + "Bytes": str(len(body))}
    yield zlib.compress(body), {**size, DEAD + "Encoding": _DEFLATE}
    final = f"its payload of {len(body)} bytes did not fit beside these headers, and was cut"
    yield body[: len(body) // 2], {**size, DEAD + "Final": final}


async def redrive(transport: DurableTransport, service: str, sequence: int) -> str:
    """Send a dead letter to the handler that failed, and remove it once the broker has stored it again.

    Returns:
        The new message id; the original one stays in the header `X-Original-Message-ID`.

    Raises:
        NotFoundError: the stream holds no dead letter of that number.
        ConflictError: its handler cannot be given it again; the dead letter stays.
        NotStored: nothing was changed.
    """
    stream = dlq_stream(service)
    async for stored in transport.browse(stream, after=sequence - 1):
        message = stored.message
        handler = message.subject.removeprefix(f"dlq.{service}.")
        if stored.sequence != sequence or handler == message.subject:
            break
        headers = message.headers or _NO_HEADERS
        final = headers.get(DEAD + "Final")
        if final is not None:
            raise ConflictError(
                f"dead letter {sequence} of service {service!r} cannot be redriven: {final}; "
                f"publish the event again on {headers.get(DEAD + 'Subject', '?')!r}, and drop the dead letter"
            )
        message_id = f"redrive:{service}:{sequence}"  # the same for two who do so at once, or again after a failure
        copy = Message(f"redrive.{service}.{handler}", message.body, message.headers)
        await transport.publish_durable(copy, stream=stream, message_id=message_id, timeout_s=PUBLISH_TIMEOUT_S)
        await transport.delete(stream, sequence)
        return message_id
    raise NotFoundError(f"stream {stream!r} holds no dead letter {sequence}; list them first")


def unpacked(message: Message) -> bytes:
    """Return the body of a dead letter, or of a redriven one, as it was published; as it is where that cannot be."""
    if (message.headers or _NO_HEADERS).get(DEAD + "Encoding") != _DEFLATE:
        return message.body
    import zlib

    try:
        return zlib.decompressobj().decompress(message.body, _LARGEST)
    except zlib.error:
        return message.body


def first_subject(message: Message) -> str:
    """Return where a message was first published; a redriven one comes on a subject of its own."""
    if message.subject.startswith("redrive."):
        return (message.headers or _NO_HEADERS).get(DEAD + "Subject", message.subject)
    return message.subject


def utc_now() -> str:
    """Return the time as dead letters tell it: ISO 8601, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _first_failure(message: Message) -> str | None:
    """Return when a redriven message failed for the first time; None for any other, whatever it says."""
    if not message.subject.startswith("redrive."):
        return None
    headers = message.headers or _NO_HEADERS
    return headers.get(DEAD + "First-Failed-At") or headers.get(DEAD + "Failed-At")


def _kept_headers(sent: Mapping[str, str]) -> dict[str, str]:
    """Copy headers without credentials and the broker's own, made fit to send: others send what we never would."""
    kept: dict[str, str] = {}
    for key, value in sent.items():
        lower = key.lower()
        if lower not in CREDENTIAL_HEADERS and not lower.startswith(("nats-", DEAD.lower())):
            fit = value.isprintable() and value == value.strip()
            with contextlib.suppress(InvalidHeader):  # a name that is no token
                kept.update(validate_headers({key: value if fit else _header_text(value)}))
    return kept


def _header_text(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text).strip() or "?"
