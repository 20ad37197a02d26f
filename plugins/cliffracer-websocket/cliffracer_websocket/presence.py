"""`Presence`: who is in which group at the other replicas, as far as they have said."""

from __future__ import annotations

import asyncio

from .envelopes import Changes, State

__all__ = ["Presence"]


class _Replica:
    __slots__ = ("revision", "rooms", "seen")

    def __init__(self) -> None:
        self.revision = -1
        self.rooms: dict[str, dict[str, str]] = {}
        self.seen = 0.0


class Presence:
    """What each other replica said last.

    Args:
        expiry_s: a replica that was silent for so many seconds is gone, with its clients.
    """

    def __init__(self, expiry_s: float) -> None:
        self._expiry_s = expiry_s
        self._replicas: dict[str, _Replica] = {}

    @property
    def replicas(self) -> list[str]:
        """Ids of the other replicas."""
        return list(self._replicas)

    def heard(self, origin: str, revision: int) -> bool:
        """Note a sign of life; False where what is known of that replica is not of this revision."""
        return self._seen(origin).revision == revision

    def replace(self, state: State) -> None:
        """Take over a replica's whole state."""
        replica = self._seen(state.origin)
        replica.revision, replica.rooms = state.revision, state.rooms

    def change(self, changes: Changes) -> bool:
        """Apply changes; False where others before them were missed."""
        replica = self._seen(changes.origin)
        if replica.revision != changes.revision - 1:
            return False
        replica.revision = changes.revision
        for group, client, user in changes.joined:
            replica.rooms.setdefault(group, {})[client] = user
        for group, client in changes.left:
            room = replica.rooms.get(group, {})
            room.pop(client, None)
            if not room:
                replica.rooms.pop(group, None)
        return True

    def remove(self, origin: str) -> None:
        """Forget a replica."""
        self._replicas.pop(origin, None)

    def expire(self) -> None:
        """Forget the replicas that have been silent for too long."""
        oldest = asyncio.get_running_loop().time() - self._expiry_s
        for origin in [each for each, replica in self._replicas.items() if replica.seen < oldest]:
            del self._replicas[origin]

    def users(self, group: str) -> dict[str, str]:
        """Return client id and user of each socket in a group, at all the other replicas."""
        found: dict[str, str] = {}
        for replica in self._replicas.values():
            found |= replica.rooms.get(group, {})
        return found

    def _seen(self, origin: str) -> _Replica:
        replica = self._replicas.setdefault(origin, _Replica())
        replica.seen = asyncio.get_running_loop().time()
        return replica
