"""The NATS server goes away and comes back while a service answers HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
from cliffracer_nats import EmbeddedNats

from cliffracer_core.testing import eventually

from .forms import Form
from .processes import Worker

NOTICED_WITHIN_S = 10.0
BACK_WITHIN_S = 30.0


class Visitors:
    """Clients that ask for what needs no broker, one of them on a new connection each time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answered = 0

    @contextlib.asynccontextmanager
    async def visiting(self) -> AsyncIterator[None]:
        """Ask until the block ends; a wrong answer, or none, fails it."""
        async with asyncio.TaskGroup() as group, httpx.AsyncClient(base_url=self._url) as kept:
            tasks = [group.create_task(self._visit(kept)), group.create_task(self._visit(None))]
            yield
            for task in tasks:
                task.cancel()

    async def _visit(self, kept: httpx.AsyncClient | None) -> None:
        while True:
            if kept is not None:
                await self._ask(kept)
            else:
                async with httpx.AsyncClient(base_url=self._url) as client:
                    await self._ask(client)
            self.answered += 1

    async def _ask(self, client: httpx.AsyncClient) -> None:
        for kind in ("quick", "slow"):
            answer = await client.get(f"/{kind}/{self.answered}")
            assert answer.status_code == 200, answer.text


async def test_http_goes_on_when_the_broker_is_away(
    nats: EmbeddedNats, unused_tcp_port: int, tmp_path: Path, form: Form, report: Callable[[str], None]
) -> None:
    """Readiness turns 503 and comes back, liveness stays 200, and handlers that need no broker go on."""
    environment = {
        "CLIFFRACER_TRANSPORT": nats.url, "LEDGER": str(tmp_path / "ledger"),
        "CLIFFRACER_HTTP__SERVER": "uvicorn", "CLIFFRACER_HTTP__PORT": str(unused_tcp_port),
    }  # fmt: skip
    url = f"http://127.0.0.1:{unused_tcp_port}"
    worker = await Worker.start("web", tmp_path / "web.err", environment)
    try:
        await worker.until(ready=True)
        async with httpx.AsyncClient(base_url=url) as client, (visitors := Visitors(url)).visiting():

            async def ready(status: int) -> bool:
                assert (await client.get("/health/live")).status_code == 200
                return (await client.get("/health/ready")).status_code == status

            assert await ready(200)
            await asyncio.to_thread(nats.stop)
            await eventually(lambda: ready(503), NOTICED_WITHIN_S)
            away_at, before = time.monotonic(), visitors.answered
            answer = await client.get("/health")
            assert (answer.status_code, answer.json()["status"]) == (200, "disconnected")
            while time.monotonic() < away_at + form.outage_s:
                assert await ready(503), "it was ready without its broker"
                await asyncio.sleep(0.05)
            meanwhile = visitors.answered - before
            assert meanwhile > 0
            await asyncio.to_thread(nats.start)
            await eventually(lambda: ready(200), BACK_WITHIN_S)
            assert (await client.get("/health")).json()["status"] == "healthy"
            after = visitors.answered
            await eventually(lambda: visitors.answered > after)
        worker.terminate()
        assert await worker.ended() == 0
    finally:
        await worker.close()
    report(f"away for {form.outage_s:g} s: {2 * meanwhile} requests answered meanwhile, none failed")
