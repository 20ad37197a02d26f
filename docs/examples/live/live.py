"""A page that shows orders as they change: `cliffracer run live:Live`, then open http://127.0.0.1:8080."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cliffracer_http import HTMLResponse, get, post
from cliffracer_websocket import RealTimeStreamProcessor, WebSocket, websocket

from cliffracer_core import CliffracerService, NotFoundError, ServiceConfig, event

__all__ = ["Live", "Order"]

PAGE = Path(__file__).with_name("live.html")


class Order(msgspec.Struct):
    """One order."""

    id: int
    item: str
    status: str = "new"


class Live(CliffracerService):
    """Takes orders by HTTP and shows them to every open page."""

    name = "live"
    stream = RealTimeStreamProcessor(policy="conflate")

    def __init__(self, config: ServiceConfig | None = None) -> None:
        super().__init__(config)
        self.orders: dict[int, Order] = {}

    @get("/")
    async def page(self) -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @post("/orders", status_code=201)
    async def create(self, item: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]) -> Order:
        """Take an order."""
        order = Order(len(self.orders) + 1, item)
        await self.publish("order.created", order)
        return order

    @post("/orders/{id}/ship")
    async def ship(self, id: int) -> Order:
        """Ship an order."""
        if id not in self.orders:
            raise NotFoundError(f"there is no order {id}")
        order = Order(id, self.orders[id].item, "shipped")
        await self.publish("order.shipped", order)
        return order

    @event("order.*", to="orders", key="{id}")
    async def changed(self, order: Order) -> None:
        """Remember an order, and have every page show it."""
        self.orders[order.id] = order

    @websocket("/live")
    async def watch(self, websocket: WebSocket) -> None:
        """Show a page all there is, and from then on what changes."""
        await self.stream.add_connection(websocket.id, websocket, groups=["orders"])
        for order in self.orders.values():
            await websocket.send_json(msgspec.to_builtins(order))
