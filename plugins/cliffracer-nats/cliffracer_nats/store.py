"""`NatsStore`: small values by key in a JetStream key-value bucket. Source: ADR-8, "JetStream KV"; ADR-43, TTL."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator

import msgspec

from cliffracer_core.errors import ConfigurationError, ConnectionError, DeadlineExceeded, InvalidSubject, NoHandler
from cliffracer_core.interfaces import Lease, ServiceInfo
from cliffracer_core.messages import Message, StoredMessage

from . import jetstream as js
from .connection import Connection
from .jetstream import JetStream, JetStreamError
from .keys import decode_key, encode_key, subject_filter
from .settings import NatsSettings, parse_url
from .streams import Streams
from .wire import Wire

__all__ = ["NatsStore"]

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUBJECT = re.compile(r"[$A-Za-z0-9_=.-]{1,2048}")
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_TTL = "Nats-TTL"
_OPERATION = "KV-Operation"
_VALUES, _LEASES = "v", "l"  # kept apart, so that a lease may have a value's key
_READ_AT_ONCE = 64
_ATTEMPTS = 10


class _Holding(msgspec.Struct, omit_defaults=True):
    """A lease at rest. The first write of a holder does not know its revision yet, which is the epoch."""

    holder: str
    epoch: int | None = None


class NatsStore:
    """See `cliffracer_core.interfaces.Store`.

    A revision is a sequence number of the bucket's stream; as that never goes back, the revision at which
    a holder first got a lease is its epoch. Time to live is whole seconds at least 1, rounded up; the
    server's clock alone decides, and it removes a value within about a second after its time.
    Everything is read from the stream's leader.

    Args:
        url: as in `parse_url`; `?bucket=name` names the bucket.
        settings: the section `nats`; defaults without it.
        name: the connection's name in the server's monitoring.

    Raises:
        ConfigurationError: the bucket's name has other characters than letters, digits, `_` and `-`.
    """

    def __init__(self, url: str = "", settings: NatsSettings | None = None, *, name: str = "") -> None:
        self.settings = parse_url(url, settings or NatsSettings())
        self.bucket = self.settings.bucket
        if not _BUCKET.fullmatch(self.bucket):
            raise ConfigurationError(f"bucket {self.bucket!r} is not a name; use letters, digits, '_' and '-'")
        self.stream = f"KV_{self.bucket}"
        self._label = "store 'nats'"
        self._wire = Wire(Connection(self.settings, self._label, name), check_subject=_check_subject)
        self._jetstream = JetStream(self._wire)
        self._streams = Streams(self._jetstream)

    @classmethod
    def create(cls, url: str, service: ServiceInfo) -> NatsStore:
        """Make one for a service, with its section `nats` where there is one; no I/O."""
        settings = service.settings.get("nats")
        return cls(url, settings if isinstance(settings, NatsSettings) else None, name=service.name)

    async def open(self) -> None:
        """Connect, and make the bucket where it is missing.

        Raises:
            ConnectionError: no server within `connect_timeout_s` seconds, or it refused the credentials.
            ConfigurationError: it has no JetStream, or the bucket cannot keep what this store promises.
        """
        await self._wire.open()
        try:
            if not await self._jetstream.available():
                raise ConfigurationError(
                    f"{self._label}: {self.settings.url!r} has no JetStream; start nats-server with -js"
                )
            await self._make_bucket()
        except BaseException:
            await self._wire.close()
            raise

    async def _make_bucket(self) -> None:
        config = {
            "name": self.stream,
            "subjects": [f"$KV.{self.bucket}.>"],
            "storage": self.settings.storage,
            "num_replicas": self.settings.replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "retention": "limits",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
        }
        with contextlib.suppress(JetStreamError):  # it exists, or another replica was faster: look at it below
            await self._jetstream.ask(f"STREAM.CREATE.{self.stream}", config)
        try:
            existing = (await self._jetstream.ask(f"STREAM.INFO.{self.stream}"))["config"]
        except JetStreamError as error:
            raise ConfigurationError(
                f"{self._label}: bucket {self.bucket!r} cannot be created ({error}); "
                "check 'nats.replicas', the account's limits, and that the server is 2.11 or newer"
            ) from error
        if existing.get("deny_delete") or not existing.get("allow_msg_ttl") or existing["max_msgs_per_subject"] != 1:
            raise ConfigurationError(
                f"{self._label}: bucket {self.bucket!r} was made by something else, with a history or without "
                "per-message TTL; name another with '?bucket=name'"
            )

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        await self._wire.close()

    # --- values

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision, None where there is none or its time has passed."""
        found = await self._read(self._subject(_VALUES, key))
        return None if found is None or _is_marker(found) else (found.message.body, found.sequence)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write unconditionally and return the new revision; without `ttl_s` it stays for good.

        Raises:
            MessageTooLarge: nothing was written.
            ConnectionError: unknown whether it was written.
        """
        revision = await self._write(self._subject(_VALUES, key), value, ttl_s, expected=None)
        assert revision is not None  # only a conditional write gives None
        return revision

    async def compare_and_swap(
        self, key: str, value: bytes, *, revision: int, ttl_s: float | None = None
    ) -> int | None:
        """Write if the present revision is `revision` (0: if there is no value); None if it is not."""
        subject = self._subject(_VALUES, key)
        written = await self._write(subject, value, ttl_s, expected=revision)
        if written is None and revision == 0:  # a delete marker, as other KV clients leave, counts as no value
            found = await self._read(subject)
            if found is None or _is_marker(found):
                written = await self._write(subject, value, ttl_s, expected=found.sequence if found else 0)
        return written

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Remove (if the revision is still `revision`); False where nothing was removed."""
        subject = self._subject(_VALUES, key)
        while True:
            found = await self._read(subject)
            if found is None or _is_marker(found) or revision not in (None, found.sequence):
                return False
            if await self._streams.delete(self.stream, found.sequence):
                return True
            if revision is not None:  # changed between reading and removing
                return False

    async def scan(self, prefix: str = "") -> AsyncIterator[tuple[str, bytes, int]]:
        """Yield key, value and revision of each key that starts with `prefix`, by key.

        Values are read while it runs; a key that goes meanwhile is left out.
        """
        keys = sorted(await self._keys(prefix))
        for start in range(0, len(keys), _READ_AT_ONCE):
            some = keys[start : start + _READ_AT_ONCE]
            for key, found in zip(some, await asyncio.gather(*map(self.get, some)), strict=True):
                if found is not None:
                    yield key, *found

    async def _keys(self, prefix: str) -> list[str]:
        base = f"$KV.{self.bucket}.{_VALUES}."
        subjects = await self._streams.stored_subjects(self.stream, base + subject_filter(prefix))
        keys = (decode_key(subject.removeprefix(base)) for subject in subjects)
        return [key for key in keys if key.startswith(prefix)]

    # --- leases

    async def acquire(self, key: str, holder: str, *, ttl_s: float) -> Lease | None:
        """Take a lease, or renew it where `holder` has it already; None while another holds it."""
        subject = self._subject(_LEASES, key)
        for _ in range(_ATTEMPTS):
            found = await self._read(subject)
            if found is None:
                taken = await self._write(subject, msgspec.json.encode(_Holding(holder)), ttl_s, expected=0)
                if taken is not None:
                    return Lease(key, holder, taken, ttl_s)
                continue
            holding = msgspec.json.decode(found.message.body, type=_Holding)
            if holding.holder != holder:
                return None
            epoch = holding.epoch or found.sequence
            body = msgspec.json.encode(_Holding(holder, epoch))
            if await self._write(subject, body, ttl_s, expected=found.sequence) is not None:
                return Lease(key, holder, epoch, ttl_s)
        return None

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; False where it is no longer this holder's in this epoch."""
        subject = self._subject(_LEASES, lease.key)
        for _ in range(_ATTEMPTS):
            found = await self._read(subject)
            if found is None:
                return False
            holding = msgspec.json.decode(found.message.body, type=_Holding)
            if (holding.holder, holding.epoch or found.sequence) != (lease.holder, lease.epoch):
                return False
            if await self._streams.delete(self.stream, found.sequence):
                return True  # false where this holder's own renewal came between
        return False

    # --- the bucket

    def _subject(self, kind: str, key: str) -> str:
        return f"$KV.{self.bucket}.{kind}.{encode_key(key)}"

    async def _read(self, subject: str) -> StoredMessage | None:
        return await self._streams.get(self.stream, {"last_by_subj": subject})

    async def _write(self, subject: str, value: bytes, ttl_s: float | None, *, expected: int | None) -> int | None:
        headers: dict[str, str] = {}
        if ttl_s is not None:
            headers[_TTL] = f"{max(1, math.ceil(ttl_s))}s"
        if expected is not None:
            headers[_EXPECTED] = str(expected)
        try:
            ack = await self._jetstream.store(
                Message(subject, value, headers or None), self.settings.jetstream_timeout_s
            )
        except JetStreamError as error:
            if error.err_code == js.WRONG_LAST_SEQUENCE:
                return None
            raise
        except (NoHandler, DeadlineExceeded) as error:
            raise ConnectionError(
                f"{self._label}: bucket {self.bucket!r} has not confirmed a write; it may or may not be stored"
            ) from error
        return ack.seq


def _is_marker(found: StoredMessage) -> bool:
    """Tell a delete marker, as other KV clients leave, from a value."""
    return (found.message.headers or {}).get(_OPERATION) in ("DEL", "PURGE")


def _check_subject(subject: str) -> None:
    """Check the subjects this store makes; a key of 512 bytes may need more than the kernel's 1,024."""
    if not _SUBJECT.fullmatch(subject):
        raise InvalidSubject(f"subject {subject!r} is none of a bucket; this is a bug of cliffracer-nats, report it")
