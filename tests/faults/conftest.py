"""What the fault tests share: a server of their own, workers, the ledger, the counts, and figures to report."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from cliffracer_http.testing import free_ports
from cliffracer_nats import EmbeddedNats, embedded_nats

from cliffracer_core import ClientProxy

from .forms import FORMS, Form
from .processes import Worker
from .records import Records

# taken out, since the framework refuses variables with its prefix that it does not know; others of this run see it, too
_FORM = os.environ.pop("CLIFFRACER_FAULTS", None) or os.environ.get("FAULTS_FORM", "reduced")
os.environ["FAULTS_FORM"] = _FORM
_FIGURES = pytest.StashKey[list[str]]()


class Start(Protocol):
    """Starts workers of one module at the same time."""

    async def __call__(self, module: str, url: str, count: int = 1) -> list[Worker]: ...


@pytest.fixture(scope="session")
def form() -> Form:
    """The counts of this run."""
    if _FORM not in FORMS:
        pytest.fail(f"CLIFFRACER_FAULTS is {_FORM!r}; use one of {', '.join(FORMS)}", pytrace=False)
    return FORMS[_FORM]


@pytest.fixture
def nats() -> Iterator[EmbeddedNats]:
    """A server that a test may stop and kill."""
    with embedded_nats() as server:
        yield server


@pytest.fixture
def unused_tcp_port_factory() -> Iterator[Callable[[], int]]:
    """Find a port that nobody else is given during the test."""
    with free_ports() as find:
        yield find


@pytest.fixture
def unused_tcp_port(unused_tcp_port_factory: Callable[[], int]) -> int:
    """Such a port, for a server that may come back on it."""
    return unused_tcp_port_factory()


@pytest.fixture
async def proxy(nats: EmbeddedNats) -> AsyncIterator[ClientProxy]:
    """A connected client of that server."""
    async with ClientProxy(nats.url) as connected:
        yield connected


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """What the workers of a test did."""
    return Records(tmp_path / "ledger")


@pytest.fixture
async def start(tmp_path: Path, records: Records) -> AsyncIterator[Start]:
    """Start workers that are ready when it returns; they are ended with the test."""
    started: list[Worker] = []

    async def start(module: str, url: str, count: int = 1) -> list[Worker]:
        environment = {"CLIFFRACER_TRANSPORT": url, "LEDGER": str(records.path)}
        new: list[Worker] = []
        for _ in range(count):
            new.append(await Worker.start(module, tmp_path / f"{module}-{len(started)}.err", environment))
            started.append(new[-1])
        for worker in new:
            await worker.until(ready=True)
        return new

    yield start
    for worker in started:
        await worker.close()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a figure at the end of the run's output, and into its JUnit file where there is one."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def report(text: str) -> None:
        figures.append(f"{request.node.name}: {text}")
        request.node.user_properties.append(("figure", text))

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section(f"faults, {_FORM}")
        for figure in figures:
            terminalreporter.write_line(figure)
