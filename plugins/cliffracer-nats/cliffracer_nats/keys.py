"""Keys as subject tokens: any text to a valid NATS key and back."""

from __future__ import annotations

import re

from cliffracer_core.errors import ValidationError

__all__ = ["MAX_KEY_BYTES", "decode_key", "encode_key", "subject_filter"]

MAX_KEY_BYTES = 512

# A dot parts tokens only where it stands between other characters: 'a.b', and not 'a..b' or '.a'.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]|(?:(?<![^.])\.)|(?:\.(?![^.]))")
_ESCAPED = re.compile(r"(?:=[0-9A-F]{2})+")


def encode_key(key: str) -> str:
    """Write a key as one or more subject tokens; no two keys give the same.

    Letters, digits, `_`, `-` and single inner dots stand for themselves, every other byte of the UTF-8
    form becomes `=XX`.

    Raises:
        ValidationError: it is no text, empty, longer than 512 bytes, or not valid Unicode.
    """
    if not isinstance(key, str) or not key:
        raise ValidationError(f"key {key!r} is empty or no text; use 1 to {MAX_KEY_BYTES} bytes of text")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValidationError(f"key {key!r} is not valid Unicode; remove the lone surrogate") from None
    if size > MAX_KEY_BYTES:
        raise ValidationError(f"key {key[:40]!r}... is longer than {MAX_KEY_BYTES} bytes; shorten it")
    return _UNSAFE.sub(_escape, key)


def decode_key(encoded: str) -> str:
    """Read what `encode_key` wrote."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found.group().replace("=", "")).decode(), encoded)


def _escape(found: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in found.group().encode())


def subject_filter(prefix: str) -> str:
    """Return the narrowest pattern that matches the encoded form of every key that starts with `prefix`."""
    for at in range(len(prefix) - 2, 0, -1):  # a last dot may yet turn out to be an escaped one
        if prefix[at] == "." and "." not in (prefix[at - 1], prefix[at + 1]):
            return f"{_UNSAFE.sub(_escape, prefix[:at])}.>"
    return ">"
