"""`services` on a real server, and what it makes of answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cliffracer_cli.census import take_census
from cliffracer_cli.testing import CommandLine
from cliffracer_discovery import EndpointStats, StatsResponse

from cliffracer_core import ClientProxy, CliffracerService, NotFoundError, ServiceConfig
from cliffracer_core.testing import unique


def make_service(name: str, url: str) -> CliffracerService:
    service = CliffracerService(ServiceConfig(name, version="1.2.3", transport=url))

    @service.rpc
    async def find(id: int) -> int:
        if id:
            raise NotFoundError(f"no {id}")
        return id

    @service.rpc
    async def idle() -> None: ...

    return service


async def services(url: str, folder: Path, *arguments: str) -> CommandLine:
    import asyncio

    with CommandLine("services", "--transport", url, *arguments, directory=folder) as process:
        assert await asyncio.to_thread(process.wait) == 0, process.err
    return process


async def test_services_are_listed_with_their_numbers(tmp_path: Path, nats_url: str) -> None:
    """Each instance with name, version, id, endpoints, requests, errors, rate and times; `-` where unknown."""
    name = unique()
    async with (
        make_service(name, nats_url) as one,
        make_service(name, nats_url) as other,
        ClientProxy(nats_url) as client,
    ):
        for _ in range(20):
            await client.send(f"{name}.find", {"id": 0})
        with pytest.raises(NotFoundError):
            await client.send(f"{name}.find", {"id": 7})
        rows = (await services(nats_url, tmp_path, name, "--json")).json()
        table = (await services(nats_url, tmp_path, name, "--endpoints")).out
        ids = {one.info.id, other.info.id}
    assert {row["id"] for row in rows} == ids
    assert {(row["name"], row["version"]) for row in rows} == {(name, "1.2.3")}
    assert (sum(row["requests"] for row in rows), sum(row["errors"] for row in rows)) == (21, 1)
    assert all(row["rate_per_s"] > 0 and row["p99_ms"] >= row["average_ms"] > 0 for row in rows if row["requests"])
    assert table[0].split() == ["NAME", "VERSION", "ID", "ENDPOINTS", "REQUESTS", "ERRORS", "RATE", "AVERAGE", "P99"]
    assert {line.split()[2] for line in table if line.startswith(name)} == ids
    assert [line.split()[-2:] for line in table if line.startswith("  idle")] == [["-", "-"]] * 2


async def test_rates_are_those_since_the_last_look_when_watching(tmp_path: Path, nats_url: str) -> None:
    """`--watch` looks again and again until Ctrl-C; with `--json` each look is a line."""
    import asyncio
    import json
    import signal

    name = unique()
    arguments = [
        "services",
        name,
        "--transport",
        nats_url,
        "--watch",
        "--interval",
        "0.2",
        "--timeout",
        "0.2",
        "--json",
    ]
    async with make_service(name, nats_url), ClientProxy(nats_url) as client:
        await client.send(f"{name}.find", {"id": 0})
        with CommandLine(*arguments, directory=tmp_path) as process:
            await asyncio.to_thread(process.wait_for, '"requests":1', times=2)
            await client.send(f"{name}.find", {"id": 0})
            await asyncio.to_thread(process.wait_for, '"requests":2')
            process.signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait) == 130
    looks = [json.loads(line)[0] for line in process.out]
    assert looks[1]["rate_per_s"] == 0
    assert next(look for look in looks if look["requests"] == 2)["rate_per_s"] > 0


async def test_nobody_is_said_when_nobody_answers(tmp_path: Path, nats_url: str) -> None:
    """An empty list is no error."""
    process = await services(nats_url, tmp_path, unique(), "--timeout", "0.1")
    assert (process.out, process.err) == ([], ["no service answered within 0.1 s"])
    assert (await services(nats_url, tmp_path, unique(), "--timeout", "0.1", "--json")).json() == []


def test_discovery_is_asked_for_when_it_is_not_installed(tmp_path: Path, nats_url: str) -> None:
    """The error says what to install."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['cliffracer_discovery'] = None\n")
    environment = {"PYTHONPATH": str(tmp_path), "CLIFFRACER_DISABLE": "discovery"}
    with CommandLine("services", "--transport", nats_url, directory=tmp_path, environment=environment) as process:
        assert process.wait() == 3
    assert process.err == ["error: cliffracer-discovery is not installed; pip install cliffracer-discovery"]


def answer(requests: int, *, data: object = None, started: str = "") -> StatsResponse:
    endpoint = EndpointStats(
        name="e", subject="rpc.s.e", num_requests=requests, processing_time=requests * 2_000_000, data=data
    )
    return StatsResponse(name="s", id="i", version="1.0.0", started=started, endpoints=[endpoint])


def test_numbers_are_unknown_when_another_framework_leaves_them_out() -> None:
    """Without a start time there is no rate, without data no percentile; none of it is an error."""
    (row,) = take_census([answer(4)])
    assert (row.rate_per_s, row.average_ms, row.p99_ms) == (None, 2.0, None)
    (row,) = take_census([answer(0, data={"p99_ms": "fast"})])
    assert (row.rate_per_s, row.average_ms, row.p99_ms) == (None, None, None)


def test_rate_counts_from_the_start_when_the_counters_were_reset() -> None:
    """A reset between two looks gives no negative rate."""
    started = (datetime.now(UTC) - timedelta(seconds=10)).isoformat().replace("+00:00", "Z")
    (before,) = take_census([answer(100, started=started)])
    assert before.rate_per_s == pytest.approx(10, rel=0.1)
    (later,) = take_census([answer(150, started=started)], before={"i": before}, elapsed_s=2.0)
    assert later.rate_per_s == 25
    (reset,) = take_census([answer(20, started=started)], before={"i": before}, elapsed_s=2.0)
    assert reset.rate_per_s == pytest.approx(2, rel=0.1)
