"""The header block of a NATS message: bytes to a plain dict. Source: ADR-4, "NATS Message Headers"."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from cliffracer_core.messages import validate_headers

__all__ = ["StatusHeaders", "encode_headers", "parse_headers", "status_of"]

_VERSION = b"NATS/1.0"
_PLAIN = b"NATS/1.0\r\n"
_SHORT = 8


class StatusHeaders(dict[str, str]):
    """Headers of a message that the server itself made, such as `503` for no responders.

    The type tells them from a client's own header that happens to be called `Status`.
    """


def parse_headers(block: bytes) -> dict[str, str] | None:
    """Read a header block.

    Names keep their case; of a repeated name the first value counts, as in Go's `Header.Get`. A line
    that is no header is skipped, undecodable bytes of a value become U+FFFD.

    Returns:
        The headers, None where there are none. Those of a status message are `StatusHeaders` with
        `Status` and `Description`, as nats-py's own code expects them.
    """
    if block.startswith(_PLAIN) and block.isascii():  # no status, as from any client
        found = {}
        for line in block[len(_PLAIN) : -4].decode().split("\r\n"):
            name, colon, value = line.partition(":")
            if not colon or not name or " " in name or not name.isprintable():
                return _parse_any(block)
            if name not in found:
                found[name] = value.strip()
        return found
    return _parse_any(block)


def _parse_any(block: bytes) -> dict[str, str] | None:
    first, _, rest = block.partition(b"\r\n")
    found: dict[str, str] = {}
    inline = first[len(_VERSION) :].strip()
    if inline[:3].isdigit():
        found = StatusHeaders(Status=inline[:3].decode())
        if inline[3:].strip():
            found["Description"] = inline[3:].strip().decode("utf-8", "replace")
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.isascii():
            key = name.decode("ascii").strip()
            if key and key not in found and " " not in key and "\t" not in key:
                found[key] = value.strip().decode("utf-8", "replace")
    return found or None


def status_of(headers: Mapping[str, str] | None) -> str | None:
    """Return the status code of a message that the server itself made; None for any other."""
    return headers["Status"] if type(headers) is StatusHeaders else None


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Check and write a header block, which the server counts to `max_payload`.

    Raises:
        InvalidHeader: a name or value must not be sent.
    """
    if len(headers) == 1:  # a lone timeout, as on most requests, comes again
        for name, value in headers.items():
            if type(value) is str and len(value) <= _SHORT:
                return _lone(name, value)
    try:
        lines = [(_again if len(value) <= _SHORT else _line)(name, value) for name, value in headers.items()]
    except TypeError:  # one has no length or no hash: it is no text
        validate_headers(headers)
        raise
    return b"NATS/1.0\r\n%b\r\n" % b"".join(lines)


def _line(name: str, value: str) -> bytes:
    validate_headers({name: value})
    return f"{name}: {value}\r\n".encode()


@functools.lru_cache(1024)
def _lone(name: str, value: str) -> bytes:
    return b"NATS/1.0\r\n%b\r\n" % _line(name, value)


_again = functools.lru_cache(1024)(_line)  # short values, such as timeouts, come again
