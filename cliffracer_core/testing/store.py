"""The contract of a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cliffracer_core.errors import ConnectionError, ValidationError
from cliffracer_core.interfaces import Lease, Store

from .waiting import eventually, unique

__all__ = ["StoreContract"]

ODD_KEYS = ("ada@example.com", "a.b.c", "with space", "Grüße/мир/世界/🌍", "*", ">", "a%b_c", "a'b\"c\\d", "x" * 450)
BAD_KEYS = ("", "x" * 513, "ü" * 257, "a\ud800")


class StoreContract:
    """What every store promises, as tests. A subclass named `Test...` writes `make_store`."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    _opened: list[Store]

    async def make_store(self) -> Store:
        """Return a new store, not yet open, over the same data each time within one test."""
        raise NotImplementedError(f"{type(self).__name__!r} has no make_store; write one")

    @pytest_asyncio.fixture(autouse=True, loop_scope="function")
    async def _close_what_was_opened(self) -> AsyncIterator[None]:
        self._opened = []
        yield
        for store in reversed(self._opened):
            await store.close()

    async def open(self) -> Store:
        """Return an open store, closed after the test."""
        store = await self.make_store()
        self._opened.append(store)
        await store.open()
        return store

    async def test_put_is_read_back_everywhere(self) -> None:
        """What one store writes another reads, with the revision the write gave."""
        one, other, key = await self.open(), await self.open(), unique()
        assert await one.get(key) is None
        revision = await one.put(key, b"\x00\xffvalue")
        assert await other.get(key) == (b"\x00\xffvalue", revision)
        assert type((await other.get(key) or (None, 0))[0]) is bytes

    async def test_an_empty_value_is_a_value(self) -> None:
        """An empty value is there, unlike none."""
        store, key = await self.open(), unique()
        revision = await store.put(key, b"")
        assert await store.get(key) == (b"", revision)

    async def test_revisions_grow_with_each_write(self) -> None:
        """Each write of a key has a greater positive revision, also across a delete."""
        store, key = await self.open(), unique()
        revisions = [await store.put(key, b"1"), await store.put(key, b"1")]
        swapped = await store.compare_and_swap(key, b"2", revision=revisions[-1])
        assert swapped is not None
        revisions.append(swapped)
        await store.delete(key)
        revisions.append(await store.put(key, b"3"))
        assert revisions[0] > 0
        assert revisions == sorted(set(revisions))

    async def test_compare_and_swap_writes_when_the_revision_is_the_same(self) -> None:
        """Compare-and-swap writes over the revision given, over nothing for 0, and otherwise changes nothing."""
        store, key = await self.open(), unique()
        assert await store.compare_and_swap(key, b"x", revision=7) is None
        first = await store.compare_and_swap(key, b"1", revision=0)
        assert first is not None
        assert await store.compare_and_swap(key, b"x", revision=0) is None
        second = await store.compare_and_swap(key, b"2", revision=first)
        assert second is not None
        assert await store.compare_and_swap(key, b"x", revision=first) is None
        assert await store.get(key) == (b"2", second)
        assert await store.delete(key)
        assert await store.compare_and_swap(key, b"x", revision=second) is None
        assert await store.compare_and_swap(key, b"3", revision=0) is not None

    async def test_compare_and_swap_loses_no_update_when_contended(self) -> None:
        """Of concurrent writers over one revision exactly one wins, so that a counter counts each."""
        stores, key = [await self.open() for _ in range(3)], unique()

        async def count_up(store: Store) -> None:
            while True:
                value, revision = await store.get(key) or (b"0", 0)
                if await store.compare_and_swap(key, b"%d" % (int(value) + 1), revision=revision) is not None:
                    return
                await asyncio.sleep(0)

        await asyncio.gather(*(count_up(stores[number % 3]) for number in range(20)))
        assert (await stores[0].get(key) or (b"",))[0] == b"20"

    async def test_compare_and_swap_has_one_winner_when_creating(self) -> None:
        """Of concurrent creators exactly one wins."""
        stores, key = [await self.open() for _ in range(3)], unique()
        won = await asyncio.gather(*(stores[n % 3].compare_and_swap(key, b"%d" % n, revision=0) for n in range(20)))
        assert sum(each is not None for each in won) == 1

    async def test_scan_yields_what_a_prefix_has_in_order(self) -> None:
        """A scan yields each key that starts with the prefix, taken literally, once, by key."""
        store, prefix = await self.open(), unique()
        expected = {}
        for key in ODD_KEYS:
            expected[f"{prefix}/{key}"] = (key.encode(), await store.put(f"{prefix}/{key}", key.encode()))
        await store.put(f"{prefix}x", b"other")
        await store.put(f"x{prefix}/", b"other")
        found = [(key, value, revision) async for key, value, revision in store.scan(f"{prefix}/")]
        assert found == [(key, *expected[key]) for key in sorted(expected)]
        assert [key async for key, _, _ in store.scan(f"{prefix}/a.")] == [f"{prefix}/a.b.c"]
        assert [key async for key, _, _ in store.scan(f"{prefix}/*")] == [f"{prefix}/*"]
        assert [key async for key, _, _ in store.scan(f"{prefix}/a%")] == [f"{prefix}/a%b_c"]
        assert {*expected, f"{prefix}x"} <= {key async for key, _, _ in store.scan()}
        assert [key async for key, _, _ in store.scan(unique())] == []

    @pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
    async def test_any_text_is_a_key(self, key: str) -> None:
        """Keys with dots, spaces, wildcards, quotes or any script work in every method."""
        store, key = await self.open(), f"{unique()}{key}"
        revision = await store.put(key, b"1")
        assert await store.get(key) == (b"1", revision)
        swapped = await store.compare_and_swap(key, b"2", revision=revision)
        assert swapped is not None
        assert await store.delete(key, revision=swapped) is True
        assert await store.get(key) is None
        lease = await store.acquire(key, "me", ttl_s=60)
        assert lease is not None
        assert (lease.key, lease.holder) == (key, "me")
        assert await store.release(lease) is True

    @pytest.mark.parametrize("key", BAD_KEYS, ids=["empty", "too long", "too many bytes", "surrogate"])
    async def test_a_key_is_refused_when_empty_or_too_long(self, key: str) -> None:
        """A key that is empty, past 512 bytes of UTF-8, or no valid Unicode is refused by every method."""
        store = await self.open()
        for attempt in (
            store.get(key),
            store.put(key, b"x"),
            store.compare_and_swap(key, b"x", revision=0),
            store.delete(key),
            store.acquire(key, "me", ttl_s=60),
            store.release(Lease(key, "me", 1, 60)),
        ):
            with pytest.raises(ValidationError):
                await attempt
        key = unique().ljust(512, "x")
        assert await store.get(key) is None
        assert await store.put(key, b"x") > 0

    async def test_delete_removes_when_the_revision_is_the_same(self) -> None:
        """Delete removes a key, only at the revision given, and says whether there was something to remove."""
        store, key = await self.open(), unique()
        assert await store.delete(key) is False
        assert await store.delete(key, revision=1) is False
        first = await store.put(key, b"1")
        second = await store.put(key, b"2")
        assert await store.delete(key, revision=first) is False
        assert await store.get(key) == (b"2", second)
        assert await store.delete(key, revision=second) is True
        assert await store.get(key) is None
        await store.put(key, b"3")
        assert await store.delete(key) is True
        assert [each async for each in store.scan(key)] == []

    async def test_a_value_goes_when_its_time_has_passed(self) -> None:
        """A value with a TTL is gone after it for get, scan, delete and compare-and-swap."""
        store, key = await self.open(), unique()
        await store.put(f"{key}/1", b"x", ttl_s=1)
        assert await store.compare_and_swap(f"{key}/2", b"x", revision=0, ttl_s=1) is not None
        await store.put(f"{key}/3", b"stays", ttl_s=3600)
        await store.put(f"{key}/4", b"stays")

        async def gone() -> bool:
            return await store.get(f"{key}/1") is None and await store.get(f"{key}/2") is None

        await eventually(gone)
        assert [each async for each, _, _ in store.scan(f"{key}/")] == [f"{key}/3", f"{key}/4"]
        assert await store.delete(f"{key}/1") is False
        assert await store.compare_and_swap(f"{key}/2", b"y", revision=0) is not None

    async def test_a_write_sets_the_time_anew(self) -> None:
        """Each write decides how long its value stays: without a TTL for good, whatever was before."""
        store, key = await self.open(), unique()
        for name in ("put", "swapped", "renewed", "shortened"):
            revision = await store.put(f"{key}/{name}", b"1", ttl_s=3600 if name == "shortened" else 1)
            if name == "put":
                await store.put(f"{key}/{name}", b"2")
            else:
                ttl_s = {"swapped": None, "renewed": 3600.0, "shortened": 1.0}[name]
                assert await store.compare_and_swap(f"{key}/{name}", b"2", revision=revision, ttl_s=ttl_s) is not None
        await store.put(f"{key}/clock", b"x", ttl_s=1)

        async def both_gone() -> bool:
            return await store.get(f"{key}/clock") is None and await store.get(f"{key}/shortened") is None

        await eventually(both_gone)
        found = [each async for each, _, _ in store.scan(f"{key}/")]
        assert found == [f"{key}/put", f"{key}/renewed", f"{key}/swapped"]

    async def test_a_lease_has_one_holder(self) -> None:
        """While one holds a lease no other gets it, and its holder renews it in the same epoch."""
        one, other, key = await self.open(), await self.open(), unique()
        lease = await one.acquire(key, "one", ttl_s=60)
        assert lease is not None
        assert (lease.key, lease.holder, lease.ttl_s) == (key, "one", 60)
        assert await other.acquire(key, "other", ttl_s=60) is None
        renewed = await one.acquire(key, "one", ttl_s=120)
        assert renewed is not None
        assert (renewed.epoch, renewed.ttl_s) == (lease.epoch, 120)
        assert await other.acquire(unique(), "other", ttl_s=60) is not None

    async def test_a_lease_can_be_given_back_once(self) -> None:
        """A released lease is free at once; releasing it again, or when another has it, does nothing."""
        store, key = await self.open(), unique()
        lease = await store.acquire(key, "one", ttl_s=60)
        assert lease is not None
        assert await store.release(Lease(key, "other", lease.epoch, 60)) is False
        assert await store.release(Lease(key, "one", lease.epoch + 1, 60)) is False
        assert await store.release(lease) is True
        assert await store.release(lease) is False
        assert await store.acquire(key, "other", ttl_s=60) is not None
        assert await store.release(lease) is False
        assert await store.acquire(key, "one", ttl_s=60) is None

    async def test_a_lease_is_free_when_its_time_has_passed(self) -> None:
        """A lease that is not renewed goes to the next holder in a greater epoch; a renewed one stays."""
        store, key = await self.open(), unique()
        old = await store.acquire(f"{key}/old", "one", ttl_s=1)
        kept = await store.acquire(f"{key}/kept", "one", ttl_s=1)
        assert old is not None
        assert kept is not None
        assert await store.acquire(f"{key}/kept", "one", ttl_s=3600) is not None
        new = await eventually(lambda: store.acquire(f"{key}/old", "other", ttl_s=60))
        assert isinstance(new, Lease)
        assert new.epoch > old.epoch
        assert await store.release(old) is False
        assert await store.acquire(f"{key}/kept", "other", ttl_s=60) is None

    async def test_epochs_grow_with_every_grant(self) -> None:
        """Each grant that is no renewal has a greater epoch, also to the same holder after a release."""
        store, key = await self.open(), unique()
        epochs = []
        for holder in ("one", "other", "other", "one"):
            lease = await store.acquire(key, holder, ttl_s=60)
            assert lease is not None
            epochs.append(lease.epoch)
            assert await store.release(lease) is True
        assert epochs[0] > 0
        assert epochs == sorted(set(epochs))

    async def test_a_lease_has_one_winner_when_contended(self) -> None:
        """Of many that want a free lease at once exactly one gets it."""
        stores, key = [await self.open() for _ in range(3)], unique()
        for _ in range(3):
            wanted = (stores[n % 3].acquire(key, f"holder-{n}", ttl_s=60) for n in range(20))
            (lease,) = [each for each in await asyncio.gather(*wanted) if each is not None]
            assert await stores[0].release(lease) is True

    async def test_leases_and_values_are_apart(self) -> None:
        """A lease and a value of one key do not touch, and no scan shows a lease."""
        store, key = await self.open(), unique()
        lease = await store.acquire(key, "me", ttl_s=60)
        assert lease is not None
        assert await store.get(key) is None
        assert await store.compare_and_swap(key, b"x", revision=0) is not None
        assert [each async for each, _, _ in store.scan(key)] == [key]
        assert await store.delete(key) is True
        assert await store.release(lease) is True

    async def test_a_closed_store_refuses(self) -> None:
        """Closing twice, or what was never open, is no error; what is asked after it is a ConnectionError."""
        store, key = await self.make_store(), unique()
        await store.close()
        await store.open()
        await store.put(key, b"x")
        await store.close()
        await store.close()
        with pytest.raises(ConnectionError):
            await store.get(key)
        with pytest.raises(ConnectionError):
            await store.put(key, b"y")
        assert await (await self.open()).get(key) is not None
