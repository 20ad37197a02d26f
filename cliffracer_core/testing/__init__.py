"""Contract suites: what every transport and every store promises, as tests a plugin inherits.

A transport's own test module needs no more than this:

    class TestMyTransport(TransportContract):
        async def make_transport(self) -> Transport:
            return MyTransport("my://localhost")

`simulate` runs a test of services under virtual time with seeded faults.

Needs the extra `cliffracer-core[testing]`.
"""

import pytest

# before these are imported, so that their failed asserts say what was compared
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("durable", "lifecycle", "messaging", "requests", "store", "streams", "suite"))
)

from .injector import Event, Faults  # noqa: E402
from .simulation import Simulation, simulate  # noqa: E402
from .store import StoreContract  # noqa: E402
from .transport import TransportContract  # noqa: E402
from .virtual_time import Deadlock, TimeLimit  # noqa: E402
from .waiting import Collector, eventually, unique  # noqa: E402

__all__ = [
    "Collector",
    "Deadlock",
    "Event",
    "Faults",
    "Simulation",
    "StoreContract",
    "TimeLimit",
    "TransportContract",
    "eventually",
    "simulate",
    "unique",
]
