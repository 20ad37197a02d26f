from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator

import msgspec
import pytest
from cliffracer_nats import EmbeddedNats, NatsTransport, object_store
from cliffracer_nats.objects import CHUNK_BYTES

from cliffracer_core.errors import ConfigurationError, ConflictError, NotFoundError, ValidationError
from cliffracer_core.testing import unique


@pytest.fixture
async def transport(shared_nats: EmbeddedNats) -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(shared_nats.url)
    await transport.open()
    yield transport
    await transport.close()


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7])
async def test_an_object_is_read_back_however_it_was_given(transport: NatsTransport, size: int) -> None:
    """Bytes, a file and an async iterable are read back alike."""
    store, data = await object_store(transport, unique()), os.urandom(size)
    for name, source in (("bytes", data), ("file", io.BytesIO(data)), ("stream", pieces(data, 50_000))):
        info = await store.put(name, source, description="d")
        assert (info.size, info.chunks) == (size, -(-size // CHUNK_BYTES))
        assert await store.get(name) == data
        assert (await store.info(name)).digest == info.digest
    assert [each.name for each in await store.list()] == ["bytes", "file", "stream"]


async def test_an_object_is_replaced_and_deleted(transport: NatsTransport) -> None:
    """The newest object of a name counts; a deleted one is gone, with its chunks."""
    store, name = await object_store(transport, unique()), "Grüße/мир 1.bin"
    await store.put(name, b"old" * 100_000)
    await store.put(name, b"new")
    assert await store.get(name) == b"new"
    assert await store.delete(name) is True
    assert await store.delete(name) is False
    with pytest.raises(NotFoundError):
        await store.get(name)
    assert await store.list() == []
    assert await transport.streams.stored_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>") == []


async def test_the_old_object_stays_when_writing_fails(transport: NatsTransport) -> None:
    """A source that fails half way leaves the old object, and no chunks of the new one."""
    store = await object_store(transport, unique())
    await store.put("a", b"old")

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * (2 * CHUNK_BYTES)
        raise ValueError("source failed")

    with pytest.raises(ValueError, match="source failed"):
        await store.put("a", failing())
    assert await store.get("a") == b"old"
    subjects = await transport.streams.stored_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>")
    assert len(subjects) == 1


async def test_objects_are_shared_with_other_clients(transport: NatsTransport) -> None:
    """nats-py reads what we write, and we read what it writes."""
    store, data = await object_store(transport, unique()), os.urandom(300_000)
    theirs = await transport.connection.live().jetstream().object_store(store.bucket)
    await store.put("ours", data)
    assert (await theirs.get("ours")).data == data
    await theirs.put("theirs", data)
    assert await store.get("theirs") == data
    await theirs.delete("theirs")
    assert [each.name for each in await store.list()] == ["ours"]


async def test_a_damaged_object_is_a_conflict(transport: NatsTransport) -> None:
    """An object that lacks a chunk, or has another content, is not returned as if it were whole."""
    store = await object_store(transport, unique())
    await store.put("a", b"x" * (2 * CHUNK_BYTES))
    assert await transport.delete(f"OBJ_{store.bucket}", 1)
    with pytest.raises(ConflictError, match="was replaced while read"):
        await store.get("a")
    info = await store.put("b", b"right")
    await store._write_info(msgspec.structs.replace(info, digest="SHA-256=d3Jvbmc="))
    with pytest.raises(ConflictError, match="does not match its digest"):
        await store.get("b")


async def test_impossible_names_are_refused(transport: NatsTransport) -> None:
    """A bucket with a dot, and an object without a name, are refused."""
    with pytest.raises(ConfigurationError, match=r"bucket 'a\.b' is not a name"):
        await object_store(transport, "a.b")
    with pytest.raises(ValidationError):
        await (await object_store(transport, unique())).put("", b"x")
