"""What is sent to a group, and how it looks to a plain client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec

from cliffracer_core.errors import ValidationError
from cliffracer_core.messages import JSON

from .outbox import Event

__all__ = ["MAX_GROUP_BYTES", "PLAIN", "Encoding", "Position", "Publication", "check_group", "encode_data"]

MAX_GROUP_BYTES = 255


class Position(NamedTuple):
    """A place in the history of a group: what came up to `offset`, in the history named `epoch`."""

    offset: int
    epoch: str


class Publication(msgspec.Struct, frozen=True):
    """One message to a group."""

    group: str
    data: bytes
    """JSON."""
    offset: int = 0
    """Its place in the group's history, from 1; 0 without one."""
    key: str | None = None
    """A later one of the same key makes it worthless to a client that is behind."""
    stored_at: float = 0.0
    """Seconds since the epoch."""


class Encoding(Protocol):
    """How clients of one kind are spoken to."""

    def publication(self, publication: Publication) -> Event:
        """Make the frame of a group's message."""

    def message(self, data: bytes) -> Event:
        """Make the frame of a message to this client, or to all."""


class Plain:
    """A message is sent as it is, as JSON text."""

    def publication(self, publication: Publication) -> Event:
        """Make a text frame."""
        return {"type": "websocket.send", "text": publication.data.decode()}

    def message(self, data: bytes) -> Event:
        """Make a text frame."""
        return {"type": "websocket.send", "text": data.decode()}

    @staticmethod
    def notice(lost: dict[str, int]) -> Iterable[Event]:
        """Tell how many messages were lost, and of which groups."""
        groups = {group: count for group, count in lost.items() if group}
        body = {"type": "gap", "dropped": sum(lost.values()), "groups": groups}
        return [{"type": "websocket.send", "text": JSON.encode(body).decode()}]


PLAIN = Plain()


def encode_data(message: object) -> bytes:
    """Encode a message as JSON; a `msgspec.Raw` is JSON already.

    Raises:
        EncodingError: it has no encoding.
    """
    return bytes(message) if isinstance(message, msgspec.Raw) else JSON.encode(message)


def check_group(group: object) -> str:
    """Return a group's name if it is text of 1 to 255 bytes without control characters.

    Raises:
        ValidationError: it is not.
    """
    if isinstance(group, str) and group.isprintable() and 0 < len(group.encode()) <= MAX_GROUP_BYTES:
        return group
    shown = repr(group)[:60]
    raise ValidationError(f"group {shown} is not text of 1 to {MAX_GROUP_BYTES} bytes without control characters")
