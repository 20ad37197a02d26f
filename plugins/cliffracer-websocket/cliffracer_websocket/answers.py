"""What a client is sent for its message."""

from __future__ import annotations

from typing import Any

from cliffracer_core.errors import CliffracerError, ValidationError, to_body
from cliffracer_core.messages import JSON

from .codes import INVALID_PAYLOAD
from .outbox import Outbox
from .publication import PLAIN, encode_data

__all__ = ["body_of", "decode_json", "not_json", "send_error", "send_result"]

decode_json = JSON.decoder(Any)
"""Raises ValidationError."""


def body_of(message: Any) -> bytes:
    """Return what a message of ASGI holds, text or binary."""
    text = message.get("text")
    return message.get("bytes") or b"" if text is None else text.encode()


def not_json(error: ValidationError) -> str:
    """Word what makes a message no JSON as the reason of a close frame."""
    return f"a message must be JSON: {error.message.removeprefix('body is not valid application/json: ')}"


def send_result(outbox: Outbox, result: object) -> None:
    """Send what a handler returned, unless that is None. Raises EncodingError."""
    if result is not None:
        outbox.push(PLAIN.message(encode_data(result)))


def send_error(outbox: Outbox, body: bytes, error: CliffracerError, service: str) -> None:
    """Tell a client what was wrong with its message; one that is no JSON at all closes the socket."""
    broken = _broken(body) if isinstance(error, ValidationError) else None
    if broken is not None:
        outbox.close(INVALID_PAYLOAD, broken)
        return
    outbox.push(PLAIN.message(encode_data({"type": "error", "error": to_body(error, service, None)})))


def _broken(body: bytes) -> str | None:
    """Say what makes a message no JSON; None where it is."""
    try:
        decode_json(body)
    except ValidationError as error:
        return not_json(error)
    return None
