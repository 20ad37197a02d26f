"""`ObjectStore`: large values in chunks, over a `NatsTransport`. Source: ADR-20, "JetStream based Object Stores"."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

import msgspec

from cliffracer_core.errors import (
    CliffracerError,
    ConfigurationError,
    ConflictError,
    ConnectionError,
    DeadlineExceeded,
    NoHandler,
    NotFoundError,
    ValidationError,
)
from cliffracer_core.messages import Message

from .jetstream import JetStreamError
from .transport import NatsTransport

__all__ = ["CHUNK_BYTES", "ObjectInfo", "ObjectStore", "object_store"]

CHUNK_BYTES = 128 * 1024
_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,128}")
_DIGEST = "SHA-256="


class Readable(Protocol):
    """A file open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class _Options(msgspec.Struct):
    max_chunk_size: int = CHUNK_BYTES


class ObjectInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of an object; other NATS clients write and read the same."""

    name: str
    bucket: str = ""
    description: str | None = None
    nuid: str = ""
    size: int = 0
    """Bytes."""
    chunks: int = 0
    digest: str = ""
    """`SHA-256=` and the hash in base64url."""
    mtime: str = ""
    """When it was written, RFC 3339."""
    deleted: bool = False
    options: _Options | None = None


class ObjectStore:
    """One bucket of objects; made by `object_store`. Objects are read while they arrive, not held as a whole."""

    def __init__(self, transport: NatsTransport, bucket: str) -> None:
        self.bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._transport = transport
        self._jetstream = transport.jetstream
        self._streams = transport.streams

    async def put(
        self, name: str, data: bytes | Readable | AsyncIterable[bytes], *, description: str | None = None
    ) -> ObjectInfo:
        """Write an object in the place of any of that name; readers see the old one until this returns.

        Args:
            name: any non-empty text.
            data: bytes, a file open for reading (read in a thread), or an async iterable of pieces.
            description: kept with it.

        Raises:
            ConnectionError: not written; the old object stays.
        """
        before = await self._find(name)
        nuid = secrets.token_hex(11)
        digest, size, chunks = hashlib.sha256(), 0, 0
        try:
            async for chunk in _chunks(data):
                await self._write(f"$O.{self.bucket}.C.{nuid}", chunk)
                digest.update(chunk)
                size, chunks = size + len(chunk), chunks + 1
            info = ObjectInfo(
                name=name,
                bucket=self.bucket,
                description=description,
                nuid=nuid,
                size=size,
                chunks=chunks,
                digest=_DIGEST + base64.urlsafe_b64encode(digest.digest()).decode(),
                mtime=datetime.datetime.now(datetime.UTC).isoformat(),
                options=_Options(),
            )
            await self._write_info(info)
        except BaseException:
            with contextlib.suppress(CliffracerError):
                await self._purge(nuid)
            raise
        if before is not None and not before.deleted:
            await self._purge(before.nuid)
        return info

    async def get(self, name: str) -> bytes:
        """Return a whole object. Raises as `read` does."""
        return b"".join([chunk async for chunk in self.read(name)])

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield an object piece by piece.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it was replaced while it was read, or what was read is not what was written.
        """
        info = await self.info(name)
        digest, sequence, subject = hashlib.sha256(), 1, f"$O.{self.bucket}.C.{info.nuid}"
        for _ in range(info.chunks):
            found = await self._streams.get(self._stream, {"seq": sequence, "next_by_subj": subject})
            if found is None:
                raise ConflictError(f"object {name!r} in bucket {self.bucket!r} was replaced while read; read it again")
            sequence = found.sequence + 1
            digest.update(found.message.body)
            yield found.message.body
        expected = info.digest.partition("=")[2]
        if base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=") != expected.rstrip("="):
            raise ConflictError(f"object {name!r} in bucket {self.bucket!r} does not match its digest; write it again")

    async def info(self, name: str) -> ObjectInfo:
        """Return what is known of an object.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = await self._find(name)
        if found is None or found.deleted:
            raise NotFoundError(f"object {name!r} is not in bucket {self.bucket!r}")
        return found

    async def list(self) -> list[ObjectInfo]:
        """Return all objects, by name."""
        subjects = await self._streams.stored_subjects(self._stream, f"$O.{self.bucket}.M.>")
        found = await asyncio.gather(*map(self._read_info, subjects))
        return sorted((each for each in found if each is not None and not each.deleted), key=lambda each: each.name)

    async def delete(self, name: str) -> bool:
        """Remove an object; False where there was none."""
        found = await self._find(name)
        if found is None or found.deleted:
            return False
        await self._write_info(
            ObjectInfo(name=name, bucket=self.bucket, nuid=found.nuid, deleted=True, options=_Options())
        )
        await self._purge(found.nuid)
        return True

    async def _make(self) -> None:
        settings = self._transport.settings
        config = {
            "name": self._stream,
            "subjects": [f"$O.{self.bucket}.C.>", f"$O.{self.bucket}.M.>"],
            "storage": settings.storage,
            "num_replicas": settings.replicas,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "retention": "limits",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
        }
        try:
            await self._jetstream.ask(f"STREAM.CREATE.{self._stream}", config)
        except JetStreamError as error:
            if await self._streams.subjects(self._stream) is None:  # else it was there, perhaps set up otherwise
                raise ConfigurationError(
                    f"bucket {self.bucket!r} cannot be created ({error}); check 'nats.replicas' and the limits"
                ) from error

    async def _find(self, name: str) -> ObjectInfo | None:
        if not isinstance(name, str) or not name:
            raise ValidationError(f"object name {name!r} is empty or no text; name it")
        return await self._read_info(self._info_subject(name))

    async def _read_info(self, subject: str) -> ObjectInfo | None:
        found = await self._streams.get(self._stream, {"last_by_subj": subject})
        return None if found is None else msgspec.json.decode(found.message.body, type=ObjectInfo)

    async def _write_info(self, info: ObjectInfo) -> None:
        subject = self._info_subject(info.name)
        await self._write(subject, msgspec.json.encode(info), {"Nats-Rollup": "sub"})

    def _info_subject(self, name: str) -> str:
        return f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _write(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            timeout_s = self._transport.settings.jetstream_timeout_s
            await self._jetstream.store(Message(subject, body, headers), timeout_s)
        except (DeadlineExceeded, NoHandler, JetStreamError) as error:
            raise ConnectionError(f"bucket {self.bucket!r} has not taken a chunk ({error}); write it again") from error

    async def _purge(self, nuid: str) -> None:
        await self._jetstream.ask(f"STREAM.PURGE.{self._stream}", {"filter": f"$O.{self.bucket}.C.{nuid}"})


async def object_store(transport: NatsTransport, bucket: str) -> ObjectStore:
    """Open a bucket of objects over an open transport, made where it is missing.

    Raises:
        ConfigurationError: its name has other characters than letters, digits, `_` and `-`; or the
            server cannot keep it.
    """
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(f"bucket {bucket!r} is not a name; use letters, digits, '_' and '-'")
    store = ObjectStore(transport, bucket)
    await store._make()
    return store


async def _chunks(data: bytes | Readable | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes | bytearray | memoryview):
        for start in range(0, len(data), CHUNK_BYTES):
            yield bytes(data[start : start + CHUNK_BYTES])
    elif isinstance(data, AsyncIterable):
        held = bytearray()
        async for piece in data:
            held += piece
            while len(held) >= CHUNK_BYTES:
                yield bytes(held[:CHUNK_BYTES])
                del held[:CHUNK_BYTES]
        if held:
            yield bytes(held)
    else:
        while chunk := await asyncio.to_thread(data.read, CHUNK_BYTES):
            yield chunk
