"""Cliffracer as it comes: correlation id, deadline, limits, cancellation, validation, problem details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from cliffracer_http import get, post

from benchmarks.payload import TEXT
from cliffracer_core import CliffracerService, MessageContext, Middleware, ServiceConfig, hookimpl

__all__ = ["LAYERS", "VARIANTS", "make_service"]

LAYERS = 5
"""How many middlewares the variant `layers` has, so that the cost of one can be told from noise."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layers": {},
    "cors": {"cors": {"origins": ("https://app.example.com",)}},
    "compression": {"compression": True},
}
Call = Callable[[MessageContext], Awaitable[object]]


class Item(msgspec.Struct):
    number: int
    text: str


class Items(CliffracerService):
    @get("/items/{number}")
    async def find(self, number: int) -> Item:
        return Item(number=number + 1, text=TEXT)

    @post("/items")
    async def create(self, item: Item) -> Item:
        return Item(number=item.number + 1, text=item.text)


class Layers:
    """A plugin whose middlewares look at each call on its way in and out."""

    @hookimpl
    def cliffracer_register_middleware(self, declaration: object) -> Sequence[Middleware]:
        return [Middleware("observe", order, _counting) for order in range(LAYERS)]


def _counting(next: Call) -> Call:
    failed = 0

    async def call(context: MessageContext) -> object:
        nonlocal failed
        try:
            return await next(context)
        except Exception:
            failed += 1
            raise

    return call


def make_service(server: str, variant: str) -> CliffracerService:
    """Make the service, unstarted, to listen on a free port."""
    config = ServiceConfig("items", http={"port": 0, "server": server, **VARIANTS[variant]})
    return Items(config, plugins={"bench-layers": Layers()} if variant == "layers" else None)
