"""Others: services written with nats.micro and FastStream call ours and are called by it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
import pytest
from faststream.nats import NatsBroker
from nats.micro import add_service
from nats.micro.request import Request

from cliffracer_core import (
    CliffracerService,
    MessageContext,
    RPCError,
    ServiceConfig,
    ServiceError,
    create_correlation_id,
    event,
    rpc,
)


class SoldOut(ServiceError, code="interop_sold_out", status=409):
    """For one test: an error with a code of its own."""


class Shop(CliffracerService):
    """What the others call."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(ServiceConfig(name, transport=url))
        self.seen: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    @rpc
    async def price(self, sku: str, quantity: int = 1) -> dict[str, Any]:
        """Give a price, or refuse."""
        if sku == "gone":
            raise SoldOut(f"{sku} is sold out")
        return {"sku": sku, "total": 2 * quantity}

    @event("interop.sold.*")
    async def sold(self, sku: str, quantity: int, context: MessageContext) -> None:
        """Keep what was sold."""
        await self.seen.put((sku, quantity))


@pytest.fixture
def name() -> str:
    return f"shop_{create_correlation_id()}"


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow")  # nats.micro's own call
async def test_nats_micro_service_answers_when_ours_calls_it(nats_url: str, name: str) -> None:
    """A service of nats.micro on `rpc.<service>.<method>` is called like one of ours, its errors included."""
    connection = await nats.connect(nats_url)
    service = await add_service(connection, name=f"{name}_micro", version="1.0.0")

    async def double(request: Request) -> None:
        number = json.loads(request.data)["number"]
        if number < 0:
            await request.respond_error(code="400", description="negative")
        else:
            await request.respond(json.dumps({"doubled": 2 * number}).encode())

    await service.add_endpoint(name="double", subject=f"rpc.{name}_micro.double", handler=double)
    async with Shop(name, nats_url) as shop:
        assert await shop.rpc_call(f"{name}_micro", "double", number=4) == {"doubled": 8}
        with pytest.raises(RPCError, match="negative") as caught:
            await shop.rpc_call(f"{name}_micro", "double", number=-1)
        assert caught.value.details["code"] == "400"
    await service.stop()
    await connection.close()


async def test_ours_answers_when_a_raw_nats_client_calls(nats_url: str, name: str) -> None:
    """A plain request with a JSON body gets plain JSON back; an error has the headers of ADR-32."""
    connection = await nats.connect(nats_url)
    async with Shop(name, nats_url):
        reply = await connection.request(f"rpc.{name}.price", b'{"sku": "a", "quantity": 3}', timeout=5)
        assert json.loads(reply.data) == {"sku": "a", "total": 6}
        assert not reply.headers
        refused = await connection.request(f"rpc.{name}.price", b'{"sku": "gone"}', timeout=5)
        assert refused.headers is not None
        assert refused.headers["Nats-Service-Error-Code"] == "409"
        assert refused.headers["Nats-Service-Error"] == "gone is sold out"
        assert json.loads(refused.data)["type"] == "interop_sold_out"
    await connection.close()


async def test_faststream_calls_ours_and_is_called_when_both_share_a_server(nats_url: str, name: str) -> None:
    """Requests go both ways, and an event published by FastStream reaches a handler of ours."""
    broker = NatsBroker(nats_url, logger=None)

    @broker.subscriber(f"rpc.{name}_fast.triple")
    async def triple(body: dict[str, int]) -> dict[str, int]:
        return {"tripled": 3 * body["number"]}

    await broker.start()
    try:
        async with Shop(name, nats_url) as shop:
            assert await shop.rpc_call(f"{name}_fast", "triple", number=5) == {"tripled": 15}
            reply = await broker.request({"sku": "b", "quantity": 2}, f"rpc.{name}.price", timeout=5)
            assert json.loads(reply.body) == {"sku": "b", "total": 4}
            await broker.publish({"sku": "c", "quantity": 9}, "interop.sold.now")
            assert await asyncio.wait_for(shop.seen.get(), 10) == ("c", 9)
    finally:
        await broker.stop()
