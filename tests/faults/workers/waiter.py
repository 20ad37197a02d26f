"""Waiter: takes orders and waits for the kitchen."""

from __future__ import annotations

from cliffracer_core import CliffracerService, client, rpc

from .kitchen import Kitchen
from .ledger import Ledger
from .serving import serve


class Waiter(CliffracerService):
    """Passes orders on to the kitchen."""

    name = "waiter"
    version = "1.0.0"
    ledger = Ledger()
    kitchen = client(Kitchen)

    @rpc
    async def order(self, meal: str) -> None:
        """Have a meal cooked."""
        with self.ledger.keep("order", meal):
            await self.kitchen.cook(meal=meal)


if __name__ == "__main__":
    serve(Waiter)
