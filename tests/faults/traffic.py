"""What the callers of the tests send to the shop, and what must have come of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from cliffracer_core import ClientProxy
from cliffracer_core.interfaces import DurableTransport

from .load import Load
from .records import Records
from .workers.shop import UNIT_PRICE, Priced, Sale, Shop

__all__ = ["STORED_WITHIN_S", "TIMEOUT_S", "calls_to", "check_answers", "handled", "sales_through"]
__all__ += ["stored_sales"]

TIMEOUT_S = 3.0
MOST_ITEMS = 16
PAUSE_S = 0.01
"""Between the sales of one caller, so that events flow all the time and are handled as fast as they come."""
STORED_WITHIN_S = 60.0
"""A durable publish asks again until then, however often the server goes away."""


def calls_to(shop: Shop) -> Callable[[str, int], Awaitable[Priced]]:
    """Ask for prices; answers take 10 to 160 ms, so at any time about as many calls run as there are callers."""
    return lambda id, number: shop.price(order=id, items=_items(number))


def _items(number: int) -> int:
    return number % MOST_ITEMS + 1


def sales_through(proxy: ClientProxy) -> Callable[[str, int], Awaitable[None]]:
    """Publish durable events, each under its own message id."""

    async def send(id: str, number: int) -> None:
        await proxy.caller.publish(
            "sale.made", Sale(id, _items(number) * UNIT_PRICE), durable=True, message_id=id, timeout=STORED_WITHIN_S
        )
        await asyncio.sleep(PAUSE_S)

    return send


def check_answers(calls: Load[Priced], by: set[int]) -> None:
    """Assert that each answer is the one to its own question, from one of these processes, and all had a share."""
    for id, answer in calls.answers.items():
        assert (answer.order, answer.total) == (id, _items(calls.numbers[id]) * UNIT_PRICE)
    assert {each.pid for each in calls.answers.values()} == by


def handled(records: Records) -> set[str]:
    """Return the sales that were recorded at least once."""
    return set(records.times("record", "done"))


async def stored_sales(proxy: ClientProxy) -> Counter[str]:
    """Count how often the stream holds each sale."""
    transport = proxy.caller.transport()
    assert isinstance(transport, DurableTransport)
    return Counter([msgspec.json.decode(each.message.body, type=Sale).order async for each in transport.browse("SALE")])
