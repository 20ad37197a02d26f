"""`cliffracer run --workers N`: several processes behind one port."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cliffracer_cli.testing import CommandLine

from cliffracer_core.testing import eventually

APP = """
import asyncio
import os

from cliffracer_core import CliffracerService
from cliffracer_http import get


class App(CliffracerService):
    name = "app"

    @get("/pid")
    async def pid(self) -> int:
        return os.getpid()

    @get("/slow")
    async def slow(self) -> int:
        print("begun", flush=True)
        await asyncio.sleep(0.5)
        return os.getpid()
"""
SERVERS = ["hypercorn", "uvicorn", "granian"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


async def ask(url: str, path: str = "/pid") -> int:
    """Ask on a connection of its own, and again where that one's worker has just ended."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with httpx.AsyncClient(timeout=20) as client:
                    return int((await client.get(url + path)).text)
            except httpx.TransportError:
                await asyncio.sleep(0.02)


async def pids_of(url: str, count: int) -> set[int]:
    pids: set[int] = set()

    async def several() -> bool:
        pids.update(await asyncio.gather(*[ask(url) for _ in range(4)]))
        return len(pids) >= count

    await eventually(several)
    return pids


@pytest.mark.parametrize("server", SERVERS)
async def test_workers_share_one_port_and_one_that_dies_is_replaced(
    folder: Path, free_port: Callable[[], int], server: str
) -> None:
    """Each worker answers; after `kill -9` of one, the others do until there is a new one; SIGTERM ends all."""
    port = free_port()
    arguments = ["run", "app:App", "--workers", "2", "--set", f"http.port={port}", "--set", f"http.server={server}"]
    url = f"http://127.0.0.1:{port}"
    with CommandLine(*arguments, directory=folder) as process:
        await asyncio.to_thread(process.wait_for, "is ready", times=2)
        before = await pids_of(url, 2)
        assert len(before) == 2
        assert process.pid not in before
        os.kill(min(before), signal.SIGKILL)
        await asyncio.to_thread(process.wait_for, "is ready", times=3)
        assert len(await pids_of(url, 2) - before) == 1
        running = asyncio.create_task(ask(url, "/slow"))
        await asyncio.to_thread(process.wait_for, "begun")
        assert await asyncio.to_thread(process.stop) == 0
        assert await running
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(url)


@pytest.mark.parametrize("setting", ["http.port=0", "http.unix_socket=s"])
def test_workers_are_refused_an_address_that_they_cannot_share(folder: Path, setting: str) -> None:
    """Port 0 would be a port of each one's own, and a Unix socket takes one listener."""
    with CommandLine("run", "app:App", "--workers", "2", "--set", setting, directory=folder) as process:
        assert process.wait() == 3
    assert any("set http.port" in line for line in process.err)


async def test_one_process_does_not_share_its_port(folder: Path, free_port: Callable[[], int]) -> None:
    """Without workers, a second program on the port fails at start, though it would share."""
    arguments = ["run", "app:App", "--set", f"http.port={free_port()}"]
    with CommandLine(*arguments, directory=folder) as process:
        await asyncio.to_thread(process.wait_for, "is ready")
        with CommandLine(*arguments, "--workers", "2", directory=folder) as other:
            assert await asyncio.to_thread(other.wait) != 0
        assert any("cannot listen" in line for line in other.err)
        assert await asyncio.to_thread(process.stop) == 0
