"""The transport of the guide: its file keeps the contract, in under 100 lines, and carries a service."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from cliffracer_core import ClientProxy, CliffracerService, ConfigurationError, ConnectionError, ServiceConfig
from cliffracer_core.interfaces import Transport
from cliffracer_core.testing import TransportContract, unique

FOLDER = Path(__file__).parent.parent / "docs" / "examples" / "transport"
sys.path.insert(0, str(FOLDER))

import lines_transport  # noqa: E402


class BrokerProcess:
    """`python lines_broker.py`, on the same port after each restart."""

    def __init__(self) -> None:
        self.port = "0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(FOLDER / "lines_broker.py"), self.port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        assert self.port, "lines_broker.py did not start"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"lines://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    process = BrokerProcess()
    yield process
    process.kill()


class TestLines(TransportContract):
    """The transport contract, on the broker as a process; what is durable is skipped, since it is not declared."""

    broker: ClassVar[BrokerProcess]

    @pytest.fixture(autouse=True)
    def _broker(self, broker: BrokerProcess) -> None:
        type(self).broker = broker

    async def make_transport(self) -> Transport:
        return lines_transport.Lines(self.broker.url)

    async def restart_server(self) -> None:
        self.broker.kill()
        self.broker.start()


def test_the_transport_has_fewer_than_100_lines() -> None:
    """The guide's title is true, blank lines and imports counted."""
    assert len((FOLDER / "lines_transport.py").read_text(encoding="utf-8").splitlines()) < 100


@pytest.mark.parametrize("name", ["lines_broker.py", "lines_client.py", "lines_transport.py"])
def test_the_guide_shows_the_files_that_are_tested(name: str) -> None:
    """The page's code is the code of this suite, letter for letter."""
    page = (FOLDER.parent.parent / "transport.md").read_text(encoding="utf-8")
    shown = re.search(rf'^( *)```python title="{name}"\n(.*?)^\1```$', page, re.M | re.S)
    assert shown, f"docs/transport.md does not show {name}"
    assert textwrap.dedent(shown[2]) == (FOLDER / name).read_text(encoding="utf-8")


def test_the_transport_declares_all_capabilities_but_durable() -> None:
    """No part of the contract is skipped, but for the one that the guide names."""
    capabilities = lines_transport.Lines.capabilities
    assert all(getattr(capabilities, name) for name in capabilities.__struct_fields__ if name != "durable")
    assert not capabilities.durable


async def test_a_service_runs_on_it(broker: BrokerProcess) -> None:
    """Installed as a plugin it serves a service and a client, streams and all, with nothing but the URL changed."""
    service = CliffracerService(ServiceConfig(unique(), transport=broker.url), plugins={"lines": lines_transport})

    @service.rpc
    async def add(left: int, right: int) -> int:
        return left + right

    closed = asyncio.Event()
    made = 0

    @service.rpc
    async def count() -> AsyncIterator[int]:
        nonlocal made
        try:
            while True:
                made += 1
                yield made
        finally:
            closed.set()

    async with service, ClientProxy(broker.url, plugins={"lines": lines_transport}) as proxy:
        assert await proxy.send(f"{service.name}.add", {"left": 2, "right": 3}) == 5
        (reply,) = await proxy.caller.call_all(service.name, "add", {"left": 2, "right": 3}, count=1)
        assert (reply.instance, reply.value) == (service.info.id, 5)
        items = proxy.caller.stream(service.name, "count", window=3)
        assert [await anext(items) for _ in range(20)] == list(range(1, 21))
        await items.aclose()
        async with asyncio.timeout(10):
            await closed.wait()
        assert made <= 23


async def test_a_durable_handler_does_not_start_on_it(broker: BrokerProcess) -> None:
    """What it does not declare stops the start."""
    service = CliffracerService(ServiceConfig(unique(), transport=broker.url), plugins={"lines": lines_transport})

    @service.event("order.placed", durable=True)
    async def ship(id: str) -> None: ...

    with pytest.raises(ConfigurationError, match="durable"):
        await service.start()


async def test_open_fails_clearly_when_nobody_is_there() -> None:
    """An unreachable broker is a ConnectionError with the remedy."""
    with pytest.raises(ConnectionError, match=r"start lines_broker\.py"):
        await lines_transport.Lines("lines://127.0.0.1:1").open()
