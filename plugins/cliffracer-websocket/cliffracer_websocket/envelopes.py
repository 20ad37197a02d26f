"""What replicas tell each other, as MessagePack arrays that carry their kind first."""

from __future__ import annotations

import msgspec

from cliffracer_core.errors import ValidationError
from cliffracer_core.messages import MSGPACK

__all__ = ["Ask", "Beat", "Bye", "Changes", "Envelope", "Epoch", "Post", "State", "Stored", "pack", "unpack"]


class _Base(msgspec.Struct, frozen=True, array_like=True, tag=True):
    origin: str
    """The replica that sends."""


class Post(_Base, frozen=True, tag="post"):
    """A message to a group, to one client or to all."""

    to: str
    """`group`, `client` or `all`."""
    name: str
    data: bytes
    key: str | None = None


class Stored(_Base, frozen=True, tag="stored"):
    """A message to a group, as the durable stream holds it."""

    id: str
    group: str
    data: bytes
    key: str | None = None


class Epoch(_Base, frozen=True, tag="epoch"):
    """The first record of a stream: its name changes when the stream is made anew."""

    id: str


class Changes(_Base, frozen=True, tag="changes"):
    """Sockets that came into groups, or left them, since `revision - 1`."""

    revision: int
    joined: list[tuple[str, str, str]]
    """Group, client, user."""
    left: list[tuple[str, str]]


class State(_Base, frozen=True, tag="state"):
    """All of one replica's sockets: user by client by group."""

    revision: int
    rooms: dict[str, dict[str, str]]


class Beat(_Base, frozen=True, tag="beat"):
    """A sign of life; who knows another revision asks."""

    revision: int


class Ask(_Base, frozen=True, tag="ask"):
    """A question for the state of one replica, or of all where `whom` is empty."""

    whom: str = ""


class Bye(_Base, frozen=True, tag="bye"):
    """The replica stops."""


Envelope = Post | Stored | Epoch | Changes | State | Beat | Ask | Bye

pack = MSGPACK.encode
_decode = MSGPACK.decoder(Envelope)


def unpack(body: bytes) -> Envelope | None:
    """Decode an envelope; None where it is none."""
    try:
        found: Envelope = _decode(body)
    except ValidationError:
        return None
    return found
