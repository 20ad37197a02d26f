"""Entity tags: a client that has a version already is not sent it again (RFC 9110, sections 8.8.3 and 13.1.2)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from cliffracer_core.errors import EncodingError
from cliffracer_core.messages import JSON

__all__ = ["etag_of", "not_modified", "quote"]

_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_OPAQUE = re.compile(r"[\x21\x23-\x7e]*")


def etag_of(value: object) -> str:
    """Return a tag for any encodable value: the same value, the same tag. Raises EncodingError."""
    return hashlib.blake2b(JSON.encode(value), digest_size=16).hexdigest()


def quote(tag: str) -> bytes:
    """Return a tag as the header `ETag` carries it. Raises EncodingError for a quote or a space in it."""
    if not _OPAQUE.fullmatch(tag):
        raise EncodingError(f"etag {tag!r} holds a quote, space or non-ASCII character; use etag_of()")
    return f'"{tag}"'.encode("ascii")


def not_modified(scope: Any, tag: str) -> bool:
    """Tell whether `If-None-Match` names this version, weak or strong, or is `*`."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            text = value.decode("latin-1").strip()
            if text == "*" or tag in _TAG.findall(text):
                return True
    return False
