"""With nats-py's own implementation of the protocol, `nats.micro`, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
import pytest_asyncio
from cliffracer_discovery import EndpointInfo, EndpointStats, discover
from nats.aio.client import Client
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import Service, ServicePing, ServiceStats
from nats.micro.service import ServiceInfo as MicroInfo
from pytest_cliffracer import ServiceFactory

from cliffracer_core import ClientProxy, CliffracerService, ServiceConfig, rpc
from cliffracer_core.testing import unique

# nats-py calls datetime.utcnow(), which Python 3.12 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")

VERBS = ("PING", "INFO", "STATS")


class Echo(CliffracerService):
    description = "says it again"

    @rpc
    async def say(self, text: str) -> str:
        if not text:
            raise ValueError("nothing to say")
        return text


@pytest.fixture
def cliffracer_transport(nats_url: str) -> str:
    return nats_url


@pytest_asyncio.fixture
async def raw(nats_url: str) -> AsyncIterator[Client]:
    client = await nats.connect(nats_url)
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def micro_service(client: Client, name: str) -> AsyncIterator[Service]:
    """Run the same service in nats-py."""

    async def say(request: Request) -> None:
        if not json.loads(request.data)["text"]:
            raise ValueError("nothing to say")
        await request.respond(request.data)

    service = await add_service(
        client, name=name, version="1.0.0", description=Echo.description, metadata={"zone": "a"},
        stats_handler=lambda endpoint: {"p50_ms": 1.5},
    )  # fmt: skip
    async with service:
        await service.add_endpoint(name="say", handler=say, subject=f"rpc.{name}.say", metadata={"doc": "x"})
        yield service


async def ours(cliffracer_service: ServiceFactory) -> CliffracerService:
    config = ServiceConfig(unique(), version="1.0.0", metadata={"zone": "a"})
    return await cliffracer_service(Echo, config=config)


async def ask(raw: Client, verb: str, name: str) -> Any:
    return json.loads((await raw.request(f"$SRV.{verb}.{name}", timeout=5)).data)


def shape(value: object) -> object:
    """Return a value's structure: keys and types; of metadata and data only that they are objects."""
    if isinstance(value, dict):
        return {key: dict if key in ("metadata", "data") else shape(each) for key, each in sorted(value.items())}
    return [shape(each) for each in value] if isinstance(value, list) else type(value)


async def test_service_of_ours_answers_when_any_client_asks(cliffracer_service: ServiceFactory, raw: Client) -> None:
    """A plain request by nats-py on each of the nine subjects gets the answer of its type."""
    service = await ours(cliffracer_service)
    for verb in VERBS:
        for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{service.name}", f"$SRV.{verb}.{service.name}.{service.info.id}"):
            answer = json.loads((await raw.request(subject, timeout=5)).data)
            assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
            assert (answer["name"], answer["id"]) == (service.name, service.info.id)


async def test_fields_are_those_of_nats_micro_when_compared(cliffracer_service: ServiceFactory, raw: Client) -> None:
    """The same service, ours and nats-py's: every answer has the same keys, with the same types, after a call and an
    error of each too."""
    service = await ours(cliffracer_service)
    other = unique()
    async with micro_service(raw, other):
        for text in ("hello", ""):
            for name in (service.name, other):
                await raw.request(f"rpc.{name}.say", json.dumps({"text": text}).encode(), timeout=5)
        for verb in VERBS:
            assert shape(await ask(raw, verb, service.name)) == shape(await ask(raw, verb, other))
        mine, theirs = [(await ask(raw, "STATS", name))["endpoints"][0] for name in (service.name, other)]
        assert (mine["num_requests"], mine["num_errors"]) == (theirs["num_requests"], theirs["num_errors"]) == (2, 1)
        assert mine["queue_group"] == theirs["queue_group"]


async def test_nats_micro_reads_our_answers_when_parsed(cliffracer_service: ServiceFactory, raw: Client) -> None:
    """nats-py's own classes take what we answer, timestamps included, and give it back the same."""
    service = await ours(cliffracer_service)
    ping, info, stats = [await ask(raw, verb, service.name) for verb in VERBS]
    assert ServicePing.from_dict(ping).to_dict() == ping
    assert MicroInfo.from_dict(info).to_dict() == info
    assert ServiceStats.from_dict(stats).to_dict() == stats


async def test_service_of_nats_micro_is_found_when_we_ask(cliffracer_client: ClientProxy, raw: Client) -> None:
    """`discover` finds a service of nats-py, and reads all three of its answers."""
    name = unique()
    async with micro_service(raw, name) as service:
        await raw.request(f"rpc.{name}.say", b'{"text": "a"}', timeout=5)
        (ping,) = await discover(cliffracer_client, "PING", name=name)
        (info,) = await discover(cliffracer_client, "INFO", name=name, id=service.id)
        (stats,) = await discover(cliffracer_client, "STATS", name=name)
        assert (ping.id, ping.version, ping.metadata) == (service.id, "1.0.0", {"zone": "a"})
        assert info.description == Echo.description
        subject = f"rpc.{name}.say"
        assert info.endpoints == [EndpointInfo(name="say", subject=subject, metadata={"doc": "x"})]
        assert isinstance(stats.endpoints[0], EndpointStats)
        assert stats.endpoints[0].num_requests == 1
        assert stats.endpoints[0].data == {"p50_ms": 1.5}


async def test_service_of_nats_micro_is_found_when_it_says_little(cliffracer_client: ClientProxy, raw: Client) -> None:
    """A service without description and metadata answers nulls, which is no reason not to find it."""
    name = unique()
    async with await add_service(raw, name=name, version="1.0.0") as service:
        await service.add_endpoint(name="say", handler=lambda request: request.respond(b""))
        (info,) = await discover(cliffracer_client, name=name)
        assert (info.description, info.endpoints) == ("", [EndpointInfo(name="say", subject="say")])
        (stats,) = await discover(cliffracer_client, "STATS", name=name)
        assert stats.endpoints == [EndpointStats(name="say", subject="say")]


async def test_both_kinds_are_found_when_all_are_asked(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy, raw: Client
) -> None:
    """One question finds services of both kinds."""
    service = await ours(cliffracer_service)
    name = unique()
    async with micro_service(raw, name):
        assert {each.name for each in await discover(cliffracer_client, "PING")} >= {service.name, name}


async def test_nobody_is_found_at_once_when_nobody_listens(
    cliffracer_client: ClientProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's own word that nobody listens ends the wait, and is no bad answer."""
    async with asyncio.timeout(10):
        assert await discover(cliffracer_client, name=unique(), timeout_s=60, quiet_s=60) == []
    assert not caplog.records


async def test_service_of_ours_is_gone_when_stopped(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """After its stop nobody listens on its subjects."""
    service = await ours(cliffracer_service)
    assert len(await discover(cliffracer_client, name=service.name)) == 1
    await service.stop()
    async with asyncio.timeout(10):
        assert await discover(cliffracer_client, name=service.name, timeout_s=60, quiet_s=60) == []
