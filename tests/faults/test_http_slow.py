"""Clients that are slow on purpose, by Debian's `slowhttptest`: with their headers, their bodies and their reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from cliffracer_http.servers import make_server

from cliffracer_core.testing import eventually

from .forms import Form
from .memory import MIB, needs_proc, private_bytes, sockets
from .processes import Worker

PATIENCE_S = 1.0
"""What the service grants: for a head, for a part of a body, for reading."""
GIVEN_UP_WITHIN_S = 20.0
"""By when all connections that are given up must be gone, generously."""
OTHERS_WITHIN_S = 5.0
"""In which everybody else is answered, generously."""
GROWTH_EACH = MIB // 2
"""Private bytes that a process may grow by for a client that reads nothing; what lies in its buffers."""
GROWTH = 12 * MIB
PROBES = 3
"""Connections of `slowhttptest` that look whether the service answers; they ask for the same, and may not read it."""
PAGES = 400
"""Of 64 KiB, which a slow reader asks for."""


def attacks(url: str, count: int) -> dict[str, list[str]]:
    """Return the arguments of each attack."""
    all = ["-c", str(count), "-r", str(count), "-i", "1", "-l", "60", "-p", "5"]
    return {
        "headers": ["-H", *all, "-u", f"{url}/users/7"],
        "body": ["-B", *all, "-x", "10", "-s", "8192", "-f", "application/json", "-u", f"{url}/names"],
        "read": ["-X", *all, "-n", "1", "-z", "10", "-w", "10", "-y", "20", "-u", f"{url}/pages/{PAGES}"],
    }


class Other:
    """A client that means well, and asks on and on, on a connection it keeps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.longest_s = 0.0
        self.answered = 0

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask until the block ends; a wrong answer, or none in time, fails it."""
        task = asyncio.create_task(self._ask())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            await task

    async def _ask(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=OTHERS_WITHIN_S) as client:
            while True:
                began = time.monotonic()
                assert (await client.get("/users/7")).json() == "7"
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.answered += 1
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def attacking(url: str, count: int, folder: Path) -> AsyncIterator[None]:
    """Attack in all ways at once until the block ends."""
    running: list[asyncio.subprocess.Process] = []
    try:
        for name, arguments in attacks(url, count).items():
            with (folder / f"{name}.out").open("wb") as out:
                running.append(await asyncio.create_subprocess_exec("slowhttptest", *arguments, stdout=out, stderr=out))
        yield
    finally:
        for each in running:
            if each.returncode is None:
                each.kill()
            await each.wait()


@needs_proc
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn", "granian"])
async def test_others_are_served_when_clients_are_slow_on_purpose(
    server: str, unused_tcp_port: int, tmp_path: Path, form: Form, report: Callable[[str], None]
) -> None:
    """Slow heads, bodies and readers are given up where the server promises it; others are served meanwhile."""
    if shutil.which("slowhttptest") is None:
        (pytest.fail if os.environ.get("REQUIRE_SLOWHTTPTEST") else pytest.skip)("slowhttptest is not installed")
    capabilities = make_server(server).capabilities
    assert capabilities.header_timeout
    environment = {
        "CLIFFRACER_TRANSPORT": "memory://", "CLIFFRACER_HTTP__SERVER": server, "CLIFFRACER_SHUTDOWN_GRACE_S": "2",
        "CLIFFRACER_HTTP__PORT": str(unused_tcp_port), "CLIFFRACER_HTTP__HEADER_TIMEOUT_S": f"{PATIENCE_S}",
        "CLIFFRACER_HTTP__BODY_TIMEOUT_S": f"{PATIENCE_S}", "CLIFFRACER_HTTP__WRITE_TIMEOUT_S": f"{PATIENCE_S}",
    }  # fmt: skip
    worker = await Worker.start("target", tmp_path / "target.err", environment)
    other = Other(url := f"http://127.0.0.1:{unused_tcp_port}")
    count = form.slow_clients
    stay = 0 if capabilities.write_timeout else count + PROBES
    try:
        await worker.until(ready=True)
        own, before, peak = sockets(worker.pid) + 1, private_bytes(worker.pid), 0
        async with attacking(url, count, tmp_path):
            async with other.asking():
                await eventually(lambda: sockets(worker.pid) >= own + 3 * count * 0.9)
                began = time.monotonic()

                def given_up() -> bool:
                    nonlocal peak
                    peak = max(peak, private_bytes(worker.pid))
                    return sockets(worker.pid) <= own + stay

                await eventually(given_up, GIVEN_UP_WITHIN_S)
                given_up_s = time.monotonic() - began
                answered = other.answered
                await eventually(lambda: other.answered > answered + 10)
            worker.terminate()
            assert await worker.ended() == 0
    finally:
        await worker.close()
    growth = peak - before
    assert growth < GROWTH + count * GROWTH_EACH, f"{growth / MIB:.1f} MiB"
    assert other.longest_s < OTHERS_WITHIN_S
    report(
        f"{server}: {3 * count} slow clients, {count if stay else 0} of them kept, the others gone after "
        f"{given_up_s:.1f} s; {other.answered} requests of another one answered, the slowest "
        f"in {other.longest_s * 1000:.0f} ms; "
        f"{growth / MIB:.1f} MiB"
    )
