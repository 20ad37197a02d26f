"""Processes that are killed at points nothing in them chooses: each places orders through the outbox until then.

Run as a script it forks one after the other, so that the imports are done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time

from cliffracer_db import Database, DatabaseModel, Repository, transactional

from cliffracer_core import CliffracerService, event, rpc
from cliffracer_core.errors import CliffracerError

MOST_ANSWERS = 15


class Order(DatabaseModel):
    __tablename__ = "orders"

    number: int


class Effect(DatabaseModel):
    __tablename__ = "effects"

    number: int


class Orders(CliffracerService):
    name = "orders"
    db = Database()
    orders = Repository(Order)
    effects = Repository(Effect)

    @event("order.placed", durable=True, idempotent=True, ack_wait_s=1.0, retries=1000, backoff_s=0.05)
    async def placed(self, number: int) -> None:
        await self.effects.create(Effect(number=number))

    @rpc
    @transactional
    async def place(self, number: int, undo: bool = False) -> None:
        await self.orders.create(Order(number=number))
        await self.publish("order.placed", {"number": number}, durable=True, outbox=f"{number % 7}")
        if undo:
            raise ValueError("undone")


def die_after(seconds: float) -> None:
    def end() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()


async def place_orders(first: int) -> None:
    async with Orders() as service:
        last = random.randrange(MOST_ANSWERS)  # by time alone, a busy machine would kill most before their first order
        numbers = iter(range(first, first + 1_000_000))

        async def work() -> None:
            for number in numbers:
                if number - first == last:
                    die_after(random.uniform(0.0, 0.03))
                with contextlib.suppress(CliffracerError):
                    await service.rpc_call("orders", "place", number=number, undo=number % 5 == 0)

        await asyncio.gather(*(work() for _ in range(4)))


def main(times: int) -> None:
    for number in range(times):
        child = os.fork()
        if child == 0:
            asyncio.run(place_orders(number * 1_000_000))
            os._exit(1)  # it ended by itself
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"process {number} was not killed: {status}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
