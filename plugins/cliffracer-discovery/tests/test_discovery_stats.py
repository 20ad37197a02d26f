from __future__ import annotations

import asyncio
import time

import pytest
from cliffracer_discovery import EndpointInfo, EndpointStats, StatsResponse, discover, reset_stats
from cliffracer_discovery.stats import Counter, HandlerStats
from pytest_cliffracer import ServiceFactory

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    DeadlineExceeded,
    MessageContext,
    MessagePattern,
    NotFoundError,
    RPCError,
    ServiceConfig,
    ServiceError,
    event,
    rpc,
)
from cliffracer_core.testing import eventually

ENDPOINT = EndpointInfo(name="get", subject="rpc.users.get")


class Users(CliffracerService):
    name = "users"
    version = "1.0.0"

    def __init__(self, config: ServiceConfig | None = None) -> None:
        super().__init__(config)
        self.running = asyncio.Event()
        self.go_on = asyncio.Event()

    @rpc
    async def get(self, id: int) -> int:
        if id < 0:
            raise NotFoundError(f"user {id} is not there")
        if id == 0:
            raise ValueError("password=hunter2")
        return id

    @rpc
    @MessagePattern("user.*")
    async def both(self, context: MessageContext) -> str:
        return context.pattern

    @rpc
    async def wait(self) -> None:
        self.running.set()
        await self.go_on.wait()

    @event("user.seen")
    async def seen(self, id: int) -> None:
        self.running.set()


async def stats_of(source: ClientProxy, name: str = "get") -> EndpointStats:
    (answer,) = await discover(source, "STATS", quiet_s=0.02)
    return next(each for each in answer.endpoints if each.name == name)


async def test_stats_are_zero_when_nothing_was_asked(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Before the first request all is there and nothing is null; percentiles of nothing are left out."""
    await cliffracer_service(Users)
    assert await stats_of(cliffracer_client) == EndpointStats(name="get", subject="rpc.users.get", data={})


async def test_requests_are_counted_and_timed_when_answered(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Each request counts once, with its time; the average is the protocol's, truncated."""
    await cliffracer_service(Users)
    before = time.perf_counter_ns()
    for id in (1, 2, 3):
        assert await cliffracer_client.send("users.get", {"id": id}) == id
    took = time.perf_counter_ns() - before
    stats = await stats_of(cliffracer_client)
    assert (stats.num_requests, stats.num_errors, stats.last_error) == (3, 0, "")
    assert 0 < stats.processing_time < took
    assert stats.average_processing_time == stats.processing_time // 3
    assert isinstance(stats.data, dict)
    assert 0 < stats.data["p50_ms"] <= stats.data["p99_ms"] < took / 1e6


async def test_error_is_told_when_it_was_meant_for_callers(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A typed error is told as its caller heard it; a refused argument counts as well."""
    await cliffracer_service(Users)
    with pytest.raises(NotFoundError):
        await cliffracer_client.send("users.get", {"id": -1})
    assert (await stats_of(cliffracer_client)).last_error == "not_found: user -1 is not there"
    with pytest.raises(ServiceError):
        await cliffracer_client.send("users.get", {"id": "hunter2"})
    stats = await stats_of(cliffracer_client)
    assert (stats.num_requests, stats.num_errors) == (2, 2)
    assert stats.last_error.startswith("validation_error: argument 'id'")
    assert "hunter2" not in stats.last_error


async def test_error_is_masked_when_unexpected(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Of an unexpected error only the type is told: its text may hold anything."""
    await cliffracer_service(Users)
    with pytest.raises(ServiceError):
        await cliffracer_client.send("users.get", {"id": 0})
    assert (await stats_of(cliffracer_client)).last_error == "ValueError: internal error"


async def test_deadline_counts_as_error_when_it_passes(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A handler that was cut is an error that says why."""
    await cliffracer_service(Users)
    with pytest.raises(DeadlineExceeded):
        await cliffracer_client.send("users.wait", timeout=0.05)

    async def counted() -> EndpointStats | None:
        stats = await stats_of(cliffracer_client, "wait")
        return stats if stats.num_errors else None

    stats = await eventually(counted)
    assert stats is not None
    assert stats.last_error == "deadline_exceeded: ran past its deadline"


async def test_cancellation_counts_as_error_when_caller_gives_up(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A handler whose caller gave up is an error that says so."""
    users = await cliffracer_service(Users)
    call = asyncio.create_task(cliffracer_client.send("users.wait"))
    await users.running.wait()
    call.cancel()
    await asyncio.wait([call])

    async def counted() -> str:
        return (await stats_of(cliffracer_client, "wait")).last_error

    assert await eventually(counted) == "cancelled"


async def test_each_subject_counts_when_handler_has_two(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Two marks are two endpoints, each with its own numbers; a pattern counts all it matches."""
    await cliffracer_service(Users)
    for pattern in ("users.both", "user.a", "user.b"):
        await cliffracer_client.send(pattern)
    (answer,) = await discover(cliffracer_client, "STATS")
    counted = {each.subject: each.num_requests for each in answer.endpoints if each.name == "both"}
    assert counted == {"rpc.users.both": 1, "rpc.user.*": 2}


async def test_only_requests_count_when_handler_is_called_otherwise(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Events are no endpoints, and a call through another entry point is no request."""
    users = await cliffracer_service(Users)
    await cliffracer_client.emit("user.seen", {"id": 1})
    await users.running.wait()
    assert await users.runtime.handlers["get"].invoke(kind="http", arguments={"id": 1}) == 1
    (answer,) = await discover(cliffracer_client, "STATS")
    assert {each.name for each in answer.endpoints} == {"get", "both", "wait"}
    assert {each.num_requests for each in answer.endpoints} == {0}


async def test_chain_has_no_layer_when_handler_takes_events_only(cliffracer_service: ServiceFactory) -> None:
    """An event handler pays nothing."""
    users = await cliffracer_service(Users)
    assert "observe discovery:stats" in users.runtime.handlers["get"].explain()
    assert "observe discovery:stats" not in users.runtime.handlers["seen"].explain()


async def test_stats_start_from_zero_when_reset(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A reset forgets all, moves `started`, and what runs meanwhile ends on the old numbers."""
    users = await cliffracer_service(Users)
    await cliffracer_client.send("users.get", {"id": 1})
    call = asyncio.create_task(cliffracer_client.send("users.wait"))
    await users.running.wait()
    (before,) = await discover(cliffracer_client, "STATS")
    reset_stats(users)
    users.go_on.set()
    await call
    (after,) = await discover(cliffracer_client, "STATS")
    assert after.started > before.started
    assert {each.num_requests: each.processing_time for each in after.endpoints} == {0: 0}


async def test_stats_start_from_zero_when_restarted(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A service that starts again is a new instance with numbers of its own."""
    users = await cliffracer_service(Users)
    await cliffracer_client.send("users.get", {"id": 1})
    (before,) = await discover(cliffracer_client, "STATS")
    await users.stop()
    await users.start()
    (after,) = await discover(cliffracer_client, "STATS")
    assert after.id != before.id
    assert {each.num_requests for each in after.endpoints} == {0}


async def test_started_is_rfc_3339_when_told(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """UTC, with milliseconds, which nats-py needs."""
    await cliffracer_service(Users)
    (answer,) = await discover(cliffracer_client, "STATS")
    assert isinstance(answer, StatsResponse)
    assert len(answer.started) == len("2026-01-01T00:00:00.000Z")
    assert answer.started.endswith("Z")


def test_percentiles_are_nearest_rank_when_reported() -> None:
    """p50 and p99 of 1 to 100 ms are 50 and 99 ms; the window keeps the last durations only."""
    counter = Counter(100)
    counter.durations.extend(ms * 1_000_000 for ms in range(1, 101))
    assert counter.report(ENDPOINT).data == {"p50_ms": 50.0, "p99_ms": 99.0}
    counter.durations.extend([7_000_000] * 100)
    assert counter.report(ENDPOINT).data == {"p50_ms": 7.0, "p99_ms": 7.0}


def test_average_is_zero_when_nothing_was_counted() -> None:
    """No division by zero, and no null."""
    assert Counter(1).report(ENDPOINT).average_processing_time == 0


async def test_error_can_be_encoded_when_its_text_is_odd() -> None:
    """A lone surrogate in an error's text does not make the statistics unanswerable."""
    stats = HandlerStats()
    stats.start(["rpc.a.b"], 10)

    async def fail(context: MessageContext) -> object:
        raise RPCError("\ud800")

    context = MessageContext(kind="rpc", service="a", handler="b", subject="rpc.a.b", pattern="rpc.a.b")
    with pytest.raises(RPCError):
        await stats.wrap(fail)(context)
    assert stats.counters["rpc.a.b"].last_error == "rpc_error: ?"
