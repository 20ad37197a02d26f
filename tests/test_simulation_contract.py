"""The simulated transport under the contract of every transport, without faults and with those it allows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from cliffracer_core.interfaces import Transport
from cliffracer_core.memory import MemoryTransport
from cliffracer_core.memory.shared import made
from cliffracer_core.testing import Faults, Simulation, TransportContract, simulate


def promises() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name each test of the contract, with each set of its arguments."""
    for name, function in inspect.getmembers(TransportContract):
        if name.startswith("test_"):
            cases: list[dict[str, Any]] = [{}]
            for mark in getattr(function, "pytestmark", ()):
                assert mark.name == "parametrize"
                names, values = mark.args
                single = isinstance(names, str)
                cases = [
                    dict(zip([names] if single else names, [each] if single else each, strict=True)) for each in values
                ]
            yield from ((name, case) for case in cases)


SLOW = Faults(delay_s=(0.0, 0.01))


class Suite(TransportContract):
    __test__ = False

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._opened = []

    async def make_transport(self) -> Transport:
        return made(MemoryTransport, "memory://")

    async def restart_server(self) -> None:
        self.simulation.restart_server(down_s=0.5)


@pytest.mark.parametrize("faults", [Faults(), SLOW], ids=["no faults", "delays"])
@pytest.mark.parametrize(("promise", "arguments"), list(promises()))
def test_simulated_transport_keeps_the_contract(promise: str, arguments: dict[str, Any], faults: Faults) -> None:
    """What holds on every transport holds on the simulated one, at once and with messages that take their time."""

    async def run(simulation: Simulation) -> None:
        suite = Suite(simulation)
        await getattr(suite, promise)(**arguments)
        for transport in reversed(suite._opened):
            await transport.close()

    simulate(run, seed=1, faults=faults)
