"""The store in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from heapq import heappop, heappush

import msgspec

from cliffracer_core.errors import ConnectionError, ValidationError
from cliffracer_core.interfaces import Lease

from .shared import parse_url, shared

__all__ = ["MAX_KEY_BYTES", "MemoryKeys", "MemoryStore"]

MAX_KEY_BYTES = 512


class Value(msgspec.Struct, frozen=True):
    """What a key holds until `expires_at` on the monotonic clock, None for good."""

    value: bytes
    revision: int
    expires_at: float | None


class Grant(msgspec.Struct, frozen=True):
    """The last lease of a key; kept when it is over, so that its epoch is never given again."""

    holder: str
    epoch: int
    expires_at: float


class MemoryKeys:
    """The keys that the stores of one event loop and URL authority share."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.grants: dict[str, Grant] = {}
        self._revision = 0  # one for all keys, so that a key written again after a delete still grows
        self._expiring: list[tuple[float, str]] = []

    def get(self, key: str) -> Value | None:
        """Return what a key holds."""
        value = self.values.get(key)
        if value is None or value.expires_at is None or value.expires_at > time.monotonic():
            return value
        del self.values[key]
        return None

    def put(self, key: str, value: bytes, ttl_s: float | None) -> int:
        """Write, and forget what has expired, read or not."""
        now = time.monotonic()
        while self._expiring and self._expiring[0][0] <= now:
            self.get(heappop(self._expiring)[1])
        self._revision += 1
        expires_at = None if ttl_s is None else now + ttl_s
        if expires_at is not None:
            heappush(self._expiring, (expires_at, key))
        self.values[key] = Value(value, self._revision, expires_at)
        return self._revision


class MemoryStore:
    """Keep small values by key, shared with all stores on this event loop that have the same URL authority.

    Args:
        url: `memory://` or `memory://name`.

    Raises:
        ConfigurationError: the URL has another form.
    """

    def __init__(self, url: str = "memory://") -> None:
        self._url = url
        self._authority, _ = parse_url(url)
        self._keys: MemoryKeys | None = None

    async def open(self) -> None:
        """Find the keys of the running loop and this URL's authority."""
        self._keys = shared(MemoryKeys, self._authority)

    async def close(self) -> None:
        """Let go; the keys stay as long as the event loop."""
        self._keys = None

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision; see `Store`."""
        found = self._for(key).get(key)
        return None if found is None else (found.value, found.revision)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write unconditionally; see `Store`."""
        return self._for(key, ttl_s).put(key, _frozen(value), ttl_s)

    async def compare_and_swap(
        self, key: str, value: bytes, *, revision: int, ttl_s: float | None = None
    ) -> int | None:
        """Write if the revision is still the same; see `Store`."""
        keys = self._for(key, ttl_s)
        found = keys.get(key)
        if (0 if found is None else found.revision) != revision:
            return None
        return keys.put(key, _frozen(value), ttl_s)

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Remove; see `Store`."""
        keys = self._for(key)
        found = keys.get(key)
        if found is None or (revision is not None and found.revision != revision):
            return False
        del keys.values[key]
        return True

    async def scan(self, prefix: str = "") -> AsyncIterator[tuple[str, bytes, int]]:
        """Yield what is there under a prefix, by key; see `Store`."""
        keys = self._open_keys()
        for key in sorted(key for key in keys.values if key.startswith(prefix)):
            found = keys.get(key)
            if found is not None:
                yield key, found.value, found.revision

    async def acquire(self, key: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take or renew a lease; see `Store`."""
        keys = self._for(key, ttl_s)
        now = time.monotonic()
        last = keys.grants.get(key)
        epoch = 1 if last is None else last.epoch + 1
        if last is not None and last.expires_at > now:
            if last.holder != holder:
                return None
            epoch = last.epoch
        keys.grants[key] = Grant(holder, epoch, now + ttl_s)
        return Lease(key, holder, epoch, ttl_s)

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; see `Store`."""
        keys = self._for(lease.key)
        now = time.monotonic()
        last = keys.grants.get(lease.key)
        if last is None or (last.holder, last.epoch) != (lease.holder, lease.epoch) or last.expires_at <= now:
            return False
        keys.grants[lease.key] = Grant(last.holder, last.epoch, now)
        return True

    def _open_keys(self) -> MemoryKeys:
        if self._keys is None:
            raise ConnectionError(f"store {self._url!r} is not open; call open() first, and nothing after close()")
        return self._keys

    def _for(self, key: str, ttl_s: float | None = None) -> MemoryKeys:
        if ttl_s is not None and not ttl_s > 0:
            raise ValidationError(f"ttl_s {ttl_s!r} is not a number of seconds above 0", details={"field": "ttl_s"})
        try:
            size = len(key.encode())
        except (AttributeError, UnicodeEncodeError):
            size = 0
        if not 0 < size <= MAX_KEY_BYTES:
            raise ValidationError(
                f"key {key if size == 0 else key[:40]!r} is not text of 1 to {MAX_KEY_BYTES} bytes; use a hash of it",
                details={"field": "key"},
            )
        return self._open_keys()


def _frozen(value: bytes) -> bytes:
    return value if type(value) is bytes else bytes(memoryview(value))
