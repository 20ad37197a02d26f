"""`Row`: one line of a table and what it must reach; the rows of `python -m benchmarks`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["OURS", "ROWS", "Row", "by_name"]

OURS = "cliffracer"


@dataclass(frozen=True)
class Row:
    """One row: a number per contestant, and what Cliffracer's must be beside the others'."""

    name: str
    title: str
    unit: str
    targets: Mapping[str, float] = field(default_factory=dict)
    """Contestant to the ratio to reach: at least where more is better, else at most."""
    more_is_better: bool = True
    base: str = ""
    """Who stands in the first column, where it is not the first contestant of all."""
    value: float | None = None
    """To reach without comparison."""
    grows: bool = False
    """A growth may be nothing, or less: no ratio."""
    lazy: Mapping[str, float] = field(default_factory=dict)
    """Targets before Python 3.12, which has no eager tasks, where they differ."""

    def targets_of(self, *, eager: bool) -> Mapping[str, float]:
        """Return the targets on an interpreter with eager tasks, or without."""
        return self.targets if eager else {**self.targets, **self.lazy}


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Return rows in their order, by name."""
    return {row.name: row for row in rows}


_INTERPRETER = "asyncio+msgspec+pluggy"
ROWS = by_name((
    Row("rpc_64", "RPC, 64 in flight", "calls/s", {"nats-py": 1.6, "faststream": 5}),
    Row("rpc_1", "RPC, one at a time, p50", "us", {"nats-py": 0.85, "faststream": 0.5}, more_is_better=False),
    Row("rpc_1_p99", "RPC, one at a time, p99", "us", more_is_better=False),
    Row(
        "events_core", "core events to a typed handler", "messages/s", {"nats-py": 1.5, "faststream": 15},
        lazy={"nats-py": 1.0, "faststream": 12},
    ),
    Row("publish", "publish until the PONG", "messages/s", {"nats-py": 1.5, "faststream": 8}),
    Row("durable", "durable events, pulled and acknowledged", "messages/s", {"nats-py": 3, "faststream": 12}),
    Row("inprocess_1", "in-process call, one at a time", "us CPU", more_is_better=False, base="task", value=8),
    Row("inprocess_64", "in-process call, 64 in flight", "us CPU", more_is_better=False, base="task", value=8),
    Row("idle_plugin", "chain beside an idle plugin the same", "1 is yes", value=1),
    *(
        Row(name, title, unit, {_INTERPRETER: 1.25}, more_is_better=False, base=_INTERPRETER)
        for name, title, unit in (
            ("import_time", "import, whole process", "ms"),
            ("import_resident", "import, resident memory", "kB"),
            ("import_private", "import, private memory", "kB"),
        )
    ),
    Row("memory_server", "memory growth, server", "kB", more_is_better=False, value=1000, grows=True),
    Row("memory_client", "memory growth, client", "kB", more_is_better=False, value=1000, grows=True),
    *(
        Row(name, title, "deliveries/s", {"bare ASGI": 0.9}, base="bare ASGI")
        for name, title in (
            ("broadcast_alone", "broadcast of 100 bytes to 200 sockets"),
            ("broadcast", "the same, twenty in one turn of the loop"),
        )
    ),
    Row(
        "broadcast_peer", "the same beside socket.io", "deliveries/s", {"python-socketio": 4}, base="python-socketio"
    ),
    Row(
        "idle_socket", "an idle socket, private memory", "kB", {"bare ASGI": 1.2}, more_is_better=False,
        base="bare ASGI",
    ),
))  # fmt: skip
