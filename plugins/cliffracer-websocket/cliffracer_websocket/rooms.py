"""`Rooms`: which of this process's sockets are in which group."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .outbox import Outbox, push_all
from .publication import Encoding, Publication

__all__ = ["EVERYONE", "Member", "Rooms"]

EVERYONE = ""
"""The room that all are in; no group has this name."""


class Member(msgspec.Struct, eq=False):
    """One socket."""

    id: str
    outbox: Outbox
    encoding: Encoding
    user: str = ""
    """Who it belongs to, where that is known."""
    groups: frozenset[str] = frozenset()
    """It is in few, and most are in the same ones."""


class Rooms:
    """Sockets by client id and group; outboxes stand by encoding, so that a frame is made once for each."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._rooms: dict[str, dict[Encoding, dict[str, Outbox]]] = {}

    def add(self, member: Member) -> None:
        """Take a socket in; its id is not taken."""
        self.members[member.id] = member
        self._enter(member, EVERYONE)

    def remove(self, id: str) -> Member | None:
        """Take a socket out of all groups; None where there is none."""
        member = self.members.pop(id, None)
        if member is not None:
            for group in (EVERYONE, *member.groups):
                self._exit(member, group)
        return member

    def join(self, member: Member, group: str) -> bool:
        """Put a socket into a group; False where it was in it."""
        if group in member.groups:
            return False
        member.groups |= {group}
        self._enter(member, group)
        return True

    def leave(self, member: Member, group: str) -> bool:
        """Take a socket out of a group; False where it was not in it."""
        if group not in member.groups:
            return False
        member.groups -= {group}
        self._exit(member, group)
        return True

    def users(self, group: str) -> dict[str, str]:
        """Return client id and user of each socket in a group."""
        return {id: self.members[id].user for boxes in self._rooms.get(group, {}).values() for id in boxes}

    def groups(self) -> Iterator[str]:
        """Yield the groups that have a socket here."""
        return (group for group in self._rooms if group != EVERYONE)

    def deliver(self, publication: Publication) -> None:
        """Push a message to all of its group."""
        for encoding, outboxes in self._rooms.get(publication.group, {}).items():
            push_all(outboxes.values(), encoding.publication(publication), publication.group, publication.key)

    def deliver_to_all(self, data: bytes, key: str | None = None) -> None:
        """Push a message to every socket."""
        for encoding, outboxes in self._rooms.get(EVERYONE, {}).items():
            push_all(outboxes.values(), encoding.message(data), EVERYONE, key)

    def deliver_to(self, id: str, data: bytes, key: str | None = None) -> bool:
        """Push a message to one socket; False where it is not here."""
        member = self.members.get(id)
        if member is None:
            return False
        member.outbox.push(member.encoding.message(data), EVERYONE, key)
        return True

    def _enter(self, member: Member, group: str) -> None:
        self._rooms.setdefault(group, {}).setdefault(member.encoding, {})[member.id] = member.outbox

    def _exit(self, member: Member, group: str) -> None:
        room = self._rooms[group]
        outboxes = room[member.encoding]
        del outboxes[member.id]
        if not outboxes:
            del room[member.encoding]
            if not room:
                del self._rooms[group]
