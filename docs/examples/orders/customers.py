"""The customers: they place the orders of a file, many at once, and keep what came of each."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from billing import Billing
from expected import Row
from model import Invoice, Receipt

from cliffracer_core import ClientProxy, CliffracerError, NoHandler, client, with_correlation_id


class Customers:
    """Place orders through a client.

    Args:
        proxy: a connected client.
        on_answer: called after each answer.
    """

    def __init__(self, proxy: ClientProxy, on_answer: Callable[[], None]) -> None:
        self.proxy = proxy
        self.on_answer = on_answer
        self.outcomes: Counter[str] = Counter()
        """`accepted`, an error's code, or `invalid <field>`."""
        self.accepted: dict[str, Receipt] = {}
        """Receipts by the order's id."""
        self.seconds: list[float] = []
        """How long each call took."""

    async def place_all(self, rows: Sequence[Row], at_once: int) -> None:
        """Place all orders, so many at once."""
        waiting = iter(rows)

        async def place_one_by_one() -> None:
            for row in waiting:
                await self.place(row)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(place_one_by_one())

    async def place(self, row: Row) -> None:
        """Place one order. Its id is the correlation id of all that follows from it, in any service."""
        started = time.perf_counter()
        with with_correlation_id(row["id"]):
            try:
                receipt = await self.proxy.send("orders.place", {"order": as_typed(row)}, returns=Receipt)
            except CliffracerError as error:
                field = str(error.details.get("field", "")).removeprefix("order.")
                self.outcomes[f"invalid {field}" if field else error.code] += 1
            else:
                self.outcomes["accepted"] += 1
                self.accepted[row["id"]] = receipt
        self.seconds.append(time.perf_counter() - started)
        self.on_answer()

    async def invoices(self, wait_s: float) -> list[Invoice]:
        """Return billing's invoices, once there are as many as receipts: events take their time."""
        billing = client(Billing, self.proxy.caller)
        until = time.monotonic() + wait_s
        while True:
            try:
                found = await billing.invoices()
            except NoHandler:  # billing has ended; the report will say so
                return []
            if len(found) >= len(self.accepted) or time.monotonic() > until:
                return found
            await asyncio.sleep(0.02)

    def percentile_ms(self, percent: int) -> float:
        """Return the time within which so many percent of the calls were answered."""
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return round(1000 * cuts[percent - 1], 1)


def as_typed(row: Row) -> dict[str, Any]:
    """Turn a line of the file into what a customer sends: no empty fields, and a number where there is one."""
    order: dict[str, Any] = {field: text for field, text in row.items() if text}
    try:
        order["quantity"] = int(order["quantity"])
    except ValueError:  # not a number: sent as it stands, and refused
        return order
    return order
