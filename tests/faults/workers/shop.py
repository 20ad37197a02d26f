"""Shop: prices orders when asked, and records each sale once its event comes."""

from __future__ import annotations

import asyncio
import os

import msgspec

from cliffracer_core import CliffracerService, MessageContext, event, rpc

from .ledger import Ledger
from .serving import serve

PRICING_S = 0.01  # for each item; what a database would take
RECORDING_S = 0.1
UNIT_PRICE = 3


class Priced(msgspec.Struct, frozen=True):
    """What an order costs, and which process says so."""

    order: str
    total: int
    pid: int


class Sale(msgspec.Struct, frozen=True):
    """Something was sold."""

    order: str
    total: int


class Shop(CliffracerService):
    """Prices orders and records sales."""

    name = "shop"
    version = "1.0.0"
    ledger = Ledger()

    @rpc
    async def price(self, order: str, items: int) -> Priced:
        """Say what an order costs."""
        with self.ledger.keep("price", order):
            await asyncio.sleep(items * PRICING_S)
            return Priced(order, items * UNIT_PRICE, os.getpid())

    @event("sale.made", durable=True, ack_wait_s=2.0, backoff_s=0.1)
    async def record(self, sale: Sale, context: MessageContext) -> None:
        """Record a sale; it may come twice, its order tells."""
        with self.ledger.keep("record", sale.order, context.attempt):
            await asyncio.sleep(RECORDING_S)


if __name__ == "__main__":
    serve(Shop)
