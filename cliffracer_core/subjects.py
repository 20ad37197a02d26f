"""The subject grammar, NATS's own, on every transport.

A subject is one or more tokens joined by dots. In a pattern `*` stands for exactly one token and a
final `>` for one or more. Source: NATS documentation, "Subject-Based Messaging".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import InvalidSubject

__all__ = ["MAX_SUBJECT_BYTES", "compile_pattern", "covers", "default_stream_subjects", "is_pattern", "overlaps"]
__all__ += ["stream_name", "validate_pattern", "validate_subject", "validate_token"]

MAX_SUBJECT_BYTES = 1024
"""Longer subjects are refused; NATS closes the connection on a control line past 4,096 bytes."""

_FORBIDDEN = r"[\s\x00-\x1f\x7f]"  # compiled with the first use, not with the import
_PLAIN = r"[A-Za-z0-9_$-]+(?:\.[A-Za-z0-9_$-]+)*"  # what nearly every subject is
_TOKEN = r"[A-Za-z0-9_-]+"
_UNSAFE_IN_STREAM = r"[^A-Za-z0-9_-]"


def validate_token(token: str, what: str) -> str:
    """Check a service, method or group name: letters, digits, `_` and `-`.

    Raises:
        InvalidSubject: naming `what` it is and the token.
    """
    if not isinstance(token, str) or not re.fullmatch(_TOKEN, token):
        raise InvalidSubject(f"{what} {token!r} is not a name; use letters, digits, '_' and '-'")
    return token


def validate_subject(subject: str) -> str:
    """Check a subject to publish on: no wildcard, no space, no control character, no empty token.

    Raises:
        InvalidSubject: with the reason.
    """
    if isinstance(subject, str) and len(subject) <= MAX_SUBJECT_BYTES and re.fullmatch(_PLAIN, subject):
        return subject
    tokens = _tokens(subject, "subject")
    if "*" in tokens or ">" in tokens:
        raise InvalidSubject(f"subject {subject!r} has a wildcard; publish on a subject without '*' and '>'")
    return subject


def validate_pattern(pattern: str) -> str:
    """Check a pattern to listen on.

    Raises:
        InvalidSubject: where a wildcard is not a whole token, or `>` is not the last.
    """
    tokens = _tokens(pattern, "pattern")
    if ">" in tokens[:-1]:
        raise InvalidSubject(f"pattern {pattern!r} has '>' before its end; '>' may only be the last token")
    return pattern


def _tokens(text: str, what: str) -> list[str]:
    if not isinstance(text, str) or not text:
        raise InvalidSubject(f"{what} {text!r} is empty or no text; write tokens joined by dots")
    if len(text) > MAX_SUBJECT_BYTES or len(text.encode("utf-8", "replace")) > MAX_SUBJECT_BYTES:
        raise InvalidSubject(f"{what} {text[:40]!r}... is longer than {MAX_SUBJECT_BYTES} bytes; shorten it")
    if re.search(_FORBIDDEN, text):
        raise InvalidSubject(f"{what} {text!r} has a space or control character; use '_' or '-'")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidSubject(f"{what} {text!r} is not valid Unicode; remove the lone surrogate") from None
    tokens = text.split(".")
    for token in tokens:
        if not token:
            raise InvalidSubject(f"{what} {text!r} has an empty token; remove the extra dot")
        if token not in ("*", ">") and ("*" in token or ">" in token):
            raise InvalidSubject(f"{what} {text!r} has a wildcard inside token {token!r}; a wildcard is a whole token")
    return tokens


def is_pattern(text: str) -> bool:
    """Tell whether a valid pattern has a wildcard."""
    tokens = text.split(".")
    return "*" in tokens or tokens[-1] == ">"


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Turn a valid pattern into a matcher of valid subjects."""
    if not is_pattern(pattern):
        return pattern.__eq__
    tokens = pattern.split(".")
    tail = tokens[-1] == ">"
    parts = [r"[^.]+" if token == "*" else re.escape(token) for token in (tokens[:-1] if tail else tokens)]
    match = re.compile(r"\.".join([*parts, ".+"] if tail else parts), re.DOTALL).fullmatch
    return lambda subject: match(subject) is not None


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every subject that `narrow` matches is matched by `wide`, both valid patterns."""
    outer, inner = wide.split("."), narrow.split(".")
    for index, token in enumerate(outer):
        if token == ">":
            return len(inner) > index
        if index >= len(inner) or inner[index] == ">":
            return False
        if token != "*" and token != inner[index]:
            return False
    return len(inner) == len(outer)


def overlaps(one: str, other: str) -> bool:
    """Tell whether some subject is matched by both, both valid patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if a == ">" or b == ">":
            return True
        if a != "*" and b != "*" and a != b:
            return False
    return len(left) == len(right)


def stream_name(pattern: str) -> str:
    """Name the stream that holds a durable pattern: its first token, upper case.

    Raises:
        InvalidSubject: where the first token is a wildcard; the declaration must then name a stream.
    """
    first = pattern.split(".", 1)[0]
    if first in ("*", ">"):
        raise InvalidSubject(f"durable pattern {pattern!r} starts with a wildcard; name its stream with stream='NAME'")
    return re.sub(_UNSAFE_IN_STREAM, "_", first).upper()


def default_stream_subjects(stream: str, pattern: str) -> list[str]:
    """Say which subjects a stream takes that is created for `pattern`, a valid pattern or subject.

    The first token and all below it; exactly the pattern where that starts with a wildcard. A dead-letter
    stream `DLQ_<service>` takes `dlq.<service>.>` and `redrive.<service>.>`, whatever the pattern.

    Raises:
        InvalidSubject: the stream's name is no token, or it would take requests.
    """
    validate_token(stream, "stream")
    first = pattern.split(".", 1)[0]
    if stream.startswith("DLQ_"):
        service = validate_token(stream.removeprefix("DLQ_"), "service of a dead-letter stream")
        subjects = [f"dlq.{service}.>", f"redrive.{service}.>"]
    elif first in ("*", ">"):
        subjects = [pattern]
    else:
        subjects = [first, f"{first}.>"]
    for subject in subjects:
        if overlaps(subject, "rpc.>"):
            raise InvalidSubject(
                f"stream {stream!r} cannot take subject {subject!r}: a stream over rpc.> would answer requests; "
                f"choose a durable pattern whose first token is neither 'rpc' nor a wildcard"
            )
    return subjects
