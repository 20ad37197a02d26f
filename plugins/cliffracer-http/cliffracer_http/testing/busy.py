"""The end while clients go on asking."""

from __future__ import annotations

import asyncio

from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["BusyContract"]

CLIENTS = 32
ROUNDS = 10


class BusyContract(ServerSuite):
    """Stopping under load."""

    async def test_each_request_that_began_is_answered_when_it_stops_under_load(self) -> None:
        """Clients that ask on and on, each on a connection it keeps, get all the answers that were begun for them."""
        answers = 0

        async def ask(url: str) -> None:
            nonlocal answers
            async with Raw(url) as raw:
                while True:
                    try:
                        await raw.send(GET % b"/busy")
                        response = await raw.response()
                    except (ConnectionError, EOFError):
                        return
                    assert response.body == b"/busy"
                    answers += 1

        for round in range(ROUNDS):
            server, url = await self.serve()
            asking = [asyncio.create_task(ask(url)) for _ in range(CLIENTS)]
            wanted = answers + 5 * CLIENTS + 7 * round  # somewhere else in the midst of it each time
            async with asyncio.timeout(20):
                while answers < wanted:
                    await asyncio.sleep(0)
            await server.stop(5)
            await asyncio.wait_for(asyncio.gather(*asking), 10)
            assert self.probe.began["/busy"] == answers
