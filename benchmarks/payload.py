"""The payload: 128 bytes of JSON, a number that changes and a text that does not."""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["FIRST", "SIZE", "TEXT", "Numbered", "body", "check_reply"]

SIZE = 128
FIRST = 1_000_000
"""Numbers have seven digits, so that every body has the same length."""
TEXT = ("The quick brown fox jumps over the lazy dog. " * 3)[: SIZE - len('{"number":1000000,"text":""}')]


class Numbered(Protocol):
    """What each contestant's model looks like: a msgspec Struct, or FastStream's default, a pydantic model."""

    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...


Model = TypeVar("Model", bound=Numbered)


def body(number: int) -> bytes:
    """Return the payload as it goes over the wire."""
    return b'{"number":%d,"text":"%s"}' % (number, TEXT.encode())


def check_reply(number: int, reply: Numbered) -> None:
    """Compare a reply with what the handler makes of `number`: one more, beside the same text.

    Raises:
        ValueError: it is not that.
    """
    if reply.number != number + 1 or reply.text != TEXT:
        raise ValueError(f"the reply to {number} is {reply!r}")
