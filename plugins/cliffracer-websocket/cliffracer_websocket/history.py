"""`History`: the latest messages of each group, and what a client that comes back has missed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from .publication import Publication

__all__ = ["MAX_FLOORS", "History"]

MAX_FLOORS = 10_000
"""Of so many groups whose messages have all expired it is known where they ended; older ones share one floor."""


class _Ring:
    __slots__ = ("floor", "items")

    def __init__(self, floor: int) -> None:
        self.items: deque[Publication] = deque()
        self.floor = floor
        """Up to here messages may be gone; past it none is."""


class History:
    """The latest messages by group, each group's in the order of their offsets.

    Args:
        size: how many of a group are kept.
        ttl_s: for how many seconds.
    """

    def __init__(self, size: int, ttl_s: float) -> None:
        self.size = size
        self.ttl_s = ttl_s
        self.floor = 0
        """What a group without messages here takes for its floor."""
        self.last = 0
        """The latest offset there is."""
        self._rings: dict[str, _Ring] = {}
        self._floors: OrderedDict[str, int] = OrderedDict()

    def append(self, publication: Publication) -> list[int]:
        """Keep a message whose offset is past all others; return the offsets it pushed out."""
        self.last = publication.offset
        ring = self._rings.get(publication.group)
        if ring is None:
            ring = self._rings[publication.group] = _Ring(self._floors.pop(publication.group, self.floor))
        ring.items.append(publication)
        gone = []
        while len(ring.items) > self.size:
            gone.append(self._shift(ring))
        return gone

    def expire(self, now: float) -> list[int]:
        """Let go of what is older than `ttl_s`, seconds since the epoch being `now`; return the offsets."""
        gone: list[int] = []
        for group, ring in list(self._rings.items()):
            while ring.items and ring.items[0].stored_at <= now - self.ttl_s:
                gone.append(self._shift(ring))
            if not ring.items:
                del self._rings[group]
                self._floors[group] = ring.floor
        while len(self._floors) > MAX_FLOORS:
            self.floor = max(self.floor, self._floors.popitem(last=False)[1])
        return gone

    def lose(self, floor: int) -> None:
        """Note that messages up to an offset may be gone, of any group, unseen."""
        self.floor = max(self.floor, floor)
        for ring in self._rings.values():
            ring.floor = max(ring.floor, floor)
        self._floors.clear()

    def clear(self) -> None:
        """Forget all, and begin again at 0."""
        self._rings.clear()
        self._floors.clear()
        self.floor = self.last = 0

    def since(self, group: str, offset: int) -> tuple[list[Publication], bool]:
        """Return a group's messages past an offset, and whether they are all there were."""
        ring = self._rings.get(group)
        if ring is None:
            return [], self._floors.get(group, self.floor) <= offset <= self.last
        missed = [each for each in ring.items if each.offset > offset]
        return missed, ring.floor <= offset <= self.last

    def read(self, group: str) -> Iterator[Publication]:
        """Yield what is kept of a group, oldest first."""
        ring = self._rings.get(group)
        return iter(ring.items if ring is not None else ())

    @staticmethod
    def _shift(ring: _Ring) -> int:
        gone = ring.items.popleft()
        ring.floor = max(ring.floor, gone.offset)
        return gone.offset
