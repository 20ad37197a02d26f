"""Kitchen: cooks, which takes until somebody gives up."""

from __future__ import annotations

import asyncio

from cliffracer_core import CliffracerService, rpc

from .ledger import Ledger
from .serving import serve


class Kitchen(CliffracerService):
    """Cooks meals that are never done."""

    name = "kitchen"
    version = "1.0.0"
    ledger = Ledger()

    @rpc
    async def cook(self, meal: str) -> None:
        """Cook until cancelled."""
        with self.ledger.keep("cook", meal):
            await asyncio.Event().wait()


if __name__ == "__main__":
    serve(Kitchen)
