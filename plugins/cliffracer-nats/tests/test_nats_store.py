from __future__ import annotations

import asyncio

import pytest
from cliffracer_nats import EmbeddedNats, NatsStore, NatsTransport, embedded_nats
from cliffracer_nats.keys import decode_key, encode_key, subject_filter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cliffracer_core.errors import ConfigurationError, ConnectionError
from cliffracer_core.subjects import compile_pattern, validate_pattern, validate_subject
from cliffracer_core.testing import eventually, unique

keys = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(".=*> @a"), min_size=1, max_size=60)


@settings(deadline=None)
@given(keys)
@example(".")
@example(".a")
@example("a.")
@example("a..b")
@example("=2E")
def test_a_key_is_read_back_from_its_subject(key: str) -> None:
    """Every key has a valid subject of its own, from which it is read back."""
    assert decode_key(encode_key(key)) == key
    validate_subject(f"v.{encode_key(key)}")


@settings(deadline=None)
@given(keys, keys)
def test_two_keys_never_share_a_subject(one: str, other: str) -> None:
    """Different keys have different subjects."""
    assert (encode_key(one) == encode_key(other)) == (one == other)


@settings(deadline=None)
@given(keys, keys, st.integers(0, 60))
def test_the_filter_of_a_prefix_finds_every_key(key: str, rest: str, length: int) -> None:
    """Whatever key starts with a prefix, the prefix's filter matches its subject."""
    pattern = f"v.{subject_filter(key[:length])}"
    validate_pattern(pattern)
    for each in (key, key[:length] + rest):
        assert compile_pattern(pattern)(f"v.{encode_key(each)}")


async def open_store(url: str) -> NatsStore:
    store = NatsStore(url)
    await store.open()
    return store


async def test_a_bucket_is_its_own_world(shared_nats: EmbeddedNats) -> None:
    """The same key in two buckets is two values."""
    one = await open_store(f"{shared_nats.url}?bucket=one")
    other = await open_store(f"{shared_nats.url}?bucket=other")
    key = unique()
    await one.put(key, b"1")
    assert await other.get(key) is None
    await one.close()
    await other.close()


async def test_replicas_that_open_at_once_all_succeed(own_nats: EmbeddedNats) -> None:
    """Many stores that make one bucket at once do not get into each other's way."""
    stores = await asyncio.gather(*(open_store(own_nats.url) for _ in range(20)))
    for store in stores:
        await store.close()


async def test_values_leases_and_epochs_survive_when_the_server_is_killed(own_nats: EmbeddedNats) -> None:
    """What was written is there after kill -9, TTLs run on, and epochs do not go back."""
    store = await open_store(own_nats.url)
    revision = await store.put("k", b"v")
    lease = await store.acquire("lease", "one", ttl_s=1)
    own_nats.kill()
    own_nats.start()
    await eventually(lambda: store._wire.connection.live().stats["reconnects"] >= 1)
    assert await store.get("k") == (b"v", revision)
    new = await eventually(lambda: store.acquire("lease", "other", ttl_s=60))
    assert lease is not None
    assert new is not None
    assert new.epoch > lease.epoch
    await store.close()


async def test_a_renewal_keeps_the_lease_alive_and_its_epoch(shared_nats: EmbeddedNats) -> None:
    """A lease renewed beyond its first TTL stays with its holder in the same epoch."""
    store, key = await open_store(shared_nats.url), unique()
    first = await store.acquire(key, "one", ttl_s=1)
    await store.acquire(f"{key}/clock", "one", ttl_s=2)
    assert first is not None

    async def clock_ran_out() -> bool:
        renewed = await store.acquire(key, "one", ttl_s=1)
        assert renewed is not None
        assert renewed.epoch == first.epoch
        assert await store.acquire(key, "other", ttl_s=1) is None
        return await store.acquire(f"{key}/clock", "other", ttl_s=1) is not None

    await eventually(clock_ran_out)
    await store.close()


async def test_a_delete_marker_of_another_client_is_no_value(shared_nats: EmbeddedNats) -> None:
    """A key deleted with nats-py's KV, which leaves a marker, is absent and can be created."""
    store, key = await open_store(shared_nats.url), unique()
    await store.put(key, b"1")
    transport = NatsTransport(shared_nats.url)
    await transport.open()
    bucket = await transport.connection.live().jetstream().key_value(store.bucket)
    await bucket.delete(f"v.{key}")
    assert await store.get(key) is None
    assert await store.delete(key) is False
    assert await store.compare_and_swap(key, b"2", revision=0) is not None
    assert (await bucket.get(f"v.{key}")).value == b"2"
    await transport.close()
    await store.close()


async def test_open_is_refused_when_the_bucket_was_made_by_something_else(own_nats: EmbeddedNats) -> None:
    """A bucket without per-message TTL is refused, with the remedy."""
    transport = NatsTransport(own_nats.url)
    await transport.open()
    await transport.connection.live().jetstream().create_key_value(bucket="theirs")
    with pytest.raises(ConfigurationError, match=r"'theirs' was made by something else.*\?bucket=name"):
        await open_store(f"{own_nats.url}?bucket=theirs")
    await transport.close()


async def test_open_is_refused_when_there_is_no_jetstream() -> None:
    """A server without JetStream, and a bucket with an impossible name, are ConfigurationErrors."""
    with embedded_nats(jetstream=False) as server, pytest.raises(ConfigurationError, match="has no JetStream"):
        await open_store(server.url)
    with pytest.raises(ConfigurationError, match="bucket 'a.b' is not a name"):
        NatsStore("nats://localhost?bucket=a.b")
    with pytest.raises(ConnectionError, match="store 'nats': cannot reach"):
        await open_store("nats://127.0.0.1:1")
