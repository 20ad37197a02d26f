"""What a reply says: a value, or an error that its callee raised."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from .errors import CliffracerError, ErrorBody, RPCError, from_body
from .messages import SERVICE_ERROR, SERVICE_ERROR_CODE, Codec, Message, codec_for

__all__ = ["is_error", "read_reply", "remote_error"]

_error_body = msgspec.json.Decoder(ErrorBody).decode


def is_error(reply: Message) -> bool:
    """Tell whether a reply says that its callee failed."""
    headers = reply.headers
    return headers is not None and (SERVICE_ERROR in headers or SERVICE_ERROR_CODE in headers)


def read_reply(
    subject: str, reply: Message, returns: Any, decoder: Callable[[Codec, Any], Callable[[bytes], Any]]
) -> Any:
    """Decode the value of a reply on `subject`, or of an item of a stream, into the type `returns`.

    Args:
        subject: what was called, for errors.
        reply: as it came.
        returns: the type; builtins where None.
        decoder: gives, and may remember, the decoder of a type.

    Raises:
        RPCError: it is of another type.
        CliffracerError: what the callee raised.
    """
    if is_error(reply):
        raise remote_error(subject, reply)
    try:
        codec = codec_for(reply.headers)
        return decoder(codec, Any if returns is None else returns)(reply.body or codec.encode(None))
    except CliffracerError as error:
        raise RPCError(f"the reply of {subject!r} does not fit what is expected: {error}") from error


def remote_error(subject: str, reply: Message) -> CliffracerError:
    """Build the error that an error reply on `subject` carries; without a body of ours, from its headers."""
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
