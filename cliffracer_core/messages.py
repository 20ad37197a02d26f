"""What crosses a transport: messages, their headers, the two codecs.

JSON is the default and is not announced; any other encoding names itself in `Content-Type`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

import msgspec

from .errors import EncodingError, InvalidHeader, ValidationError

__all__ = [
    "CODECS",
    "JSON",
    "MSGPACK",
    "Codec",
    "Delivery",
    "Message",
    "SharedHeaders",
    "StoredMessage",
    "codec_for",
    "validate_headers",
]

CONTENT_TYPE = "Content-Type"
CORRELATION_ID = "X-Correlation-ID"
TIMEOUT_MS = "Timeout-Ms"
TRACEPARENT = "traceparent"
IDEMPOTENCY_KEY = "Idempotency-Key"
AUTHORIZATION = "Authorization"
SERVICE_ERROR = "Nats-Service-Error"
SERVICE_ERROR_CODE = "Nats-Service-Error-Code"
ORIGINAL_MESSAGE_ID = "X-Original-Message-ID"
STREAM_TO = "Stream-To"
STREAM_WINDOW = "Stream-Window"
STREAM_GAP_MS = "Stream-Gap-Ms"
STREAM_SEQ = "Stream-Seq"
STREAM_END = "Stream-End"
REPLY_ALL_TO = "Reply-All-To"
INSTANCE = "X-Instance-ID"
CREDENTIAL_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
"""Lower case; never stored in a dead letter."""

_HEADER_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # a token of RFC 9110, section 5.6.2
_SHORT = 8
_HEADER_VALUE_FORBIDDEN = r"[\x00-\x08\x0a-\x1f\x7f]"


class SharedHeaders(dict[str, str]):
    """Headers that many messages have in common, and that can therefore not change; for all else a dict."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("these headers are those of other messages too; make a copy with dict()")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)  # a copy is a dict like any other


class Message(msgspec.Struct, eq=False):
    """One message, going out or come in.

    `Transport.request` fills in `reply_to` before it sends, so that a caller who gives up can name it.
    """

    subject: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None


class Delivery(Protocol):
    """One delivery of a durable message; exactly one of `ack` and `nak` ends it."""

    @property
    def message(self) -> Message:
        """The message as it was published, with its own subject and headers."""

    @property
    def attempt(self) -> int:
        """How often the broker has delivered it to this consumer, from 1; what a crash left counts."""

    @property
    def message_id(self) -> str:
        """The publisher's message id, else one made of the stream and its sequence number."""

    async def ack(self) -> None:
        """Tell the broker it is done; the broker will not deliver it again.

        Raises:
            ConnectionError: the ack could not be sent; the message comes again.
        """

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay_s` seconds."""

    async def in_progress(self) -> None:
        """Tell the broker that work goes on, which restarts its acknowledgement timer."""


class StoredMessage(msgspec.Struct, frozen=True):
    """A message at rest in a stream: `sequence` is its number there, `stored_at` seconds since the epoch."""

    sequence: int
    message: Message
    stored_at: float


def validate_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Check names (an RFC 9110 token) and values (no control character, no edge space, valid Unicode).

    Raises:
        InvalidHeader: naming the header, never its value.
    """
    for name, value in headers.items():
        if type(value) is str and len(value) <= _SHORT:
            _check_again(name, value)
        else:
            plain = isinstance(value, str) and value.isascii() and value.isprintable() and value.strip() == value
            if not plain or not _is_name(name):
                _check_header(name, value)
    return headers


@functools.lru_cache(1024)
def _is_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(_HEADER_NAME, name) is not None


def _check_header(name: str, value: str) -> None:
    if not _is_name(name):
        raise InvalidHeader(f"header name {name!r} is not a token; use letters, digits and '-'")
    if not isinstance(value, str) or re.search(_HEADER_VALUE_FORBIDDEN, value) or value != value.strip():
        raise InvalidHeader(f"header {name!r} has a value with a line break, control character or edge space")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidHeader(f"header {name!r} has a value that is not valid Unicode") from None


_check_again = functools.lru_cache(1024)(_check_header)  # short values, such as timeouts, come again


class Codec:
    """Encode and decode values of one content type, with errors of ours.

    msgspec raises four kinds of exception for bad input (its own, UnicodeDecodeError, RecursionError,
    ValueError); all leave here as `ValidationError` or `EncodingError`.
    """

    def __init__(self, content_type: str, encode: Callable[[object], bytes], decoder: type[Any]) -> None:
        self.content_type = content_type
        self.encode_quickly = encode
        """Encodes as `encode` does, with msgspec's own errors, and NaN and infinity as null in JSON."""
        self._finite = content_type == "application/json"
        self._decoder = decoder

    def encode(self, value: object) -> bytes:
        """Encode any value that msgspec can.

        Raises:
            EncodingError: the value, or something in it, has no encoding (NaN and infinity in JSON).
        """
        try:
            body = self.encode_quickly(value)
            if body.find(b"null") < 0 or not self._finite:
                return body
            # msgspec writes NaN and infinity as null; a body without that word cannot hide one
            lost = _has_non_finite(value)
        except RecursionError:
            raise EncodingError("value nests too deeply or contains itself; return a finite structure") from None
        except (TypeError, ValueError, OverflowError, AttributeError, msgspec.MsgspecError) as error:
            raise EncodingError(f"value of type {type(value).__name__!r} has no encoding: {error}") from error
        if lost:
            raise EncodingError("value holds NaN or infinity, which JSON cannot carry; return None or a string")
        return body

    def decoder(self, type: Any) -> Callable[[bytes], Any]:
        """Return a function that decodes a body into `type` and raises `ValidationError` if it does not fit."""
        decode = self._decoder(type).decode

        def decode_checked(body: bytes) -> Any:
            try:
                return decode(body)
            except msgspec.ValidationError as error:
                raise invalid(error) from None
            except RecursionError:
                raise ValidationError("body nests too deeply; flatten it") from None
            except (msgspec.DecodeError, ValueError, OverflowError, MemoryError) as error:
                raise ValidationError(f"body is not valid {self.content_type}: {error}") from None

        return decode_checked


_PATH = r"(?s)(.*) - at `(key` in `)?\$(.*)`"
_FIELD = r"[Oo]bject (missing required|contains unknown) field `([^`]+)`"


def invalid(error: msgspec.ValidationError) -> ValidationError:
    """Translate msgspec's error, which ends in a path such as `$.user.age`, into one that names the field."""
    match = re.fullmatch(_PATH, str(error))
    text, key, path = match.groups() if match else (str(error), None, "")
    if key:
        text = f"a key of it: {text[:1].lower()}{text[1:]}"
    field = path.removeprefix(".")
    named = re.match(_FIELD, text)
    if named:
        field = f"{field}.{named[2]}" if field else named[2]
        text = "it is missing" if named[1] == "missing required" else "there is no such argument"
    text = text[:1].lower() + text[1:]
    if not field:
        return ValidationError(f"body: {text}")
    return ValidationError(f"argument {field!r}: {text}", details={"field": field})


def _has_non_finite(value: object) -> bool:
    stack = [msgspec.to_builtins(value, enc_hook=lambda encoded: None)]  # only a Raw gets that far: JSON already
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
    return False


JSON = Codec("application/json", msgspec.json.Encoder().encode, msgspec.json.Decoder)
MSGPACK = Codec("application/msgpack", msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder)
CODECS = {codec.content_type: codec for codec in (JSON, MSGPACK)}


def codec_for(headers: Mapping[str, str] | None) -> Codec:
    """Choose the codec that a message's `Content-Type` names; without one it is JSON.

    Raises:
        ValidationError: for a content type that is neither JSON nor MessagePack.
    """
    named = headers.get(CONTENT_TYPE) if headers else None
    if named is None:
        return JSON
    codec = CODECS.get(named.partition(";")[0].strip().lower())
    if codec is None:
        raise ValidationError(f"content type {named!r} is not known; send {' or '.join(map(repr, CODECS))}")
    return codec
