"""The rows of the table and what each must reach."""

from __future__ import annotations

import dataclasses

__all__ = ["ROWS", "Row"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a number per contestant, and what Cliffracer's must be beside the others'."""

    name: str
    title: str
    unit: str
    more_is_better: bool = True
    base: str = "nats-py"
    """The contestant in the first column."""
    of_base: float | None = None
    """Ratio to `base` to reach: at least where more is better, else at most."""
    of_faststream: float | None = None
    value: float | None = None
    """To reach without comparison."""
    of_base_lazy: float | None = None
    """`of_base` before Python 3.12, which has no eager tasks; the same where None."""
    of_faststream_lazy: float | None = None

    def targets(self, eager: bool) -> tuple[float | None, float | None, float | None]:
        """Return ratio to base, ratio to FastStream, value."""
        if eager:
            return self.of_base, self.of_faststream, self.value
        return self.of_base_lazy or self.of_base, self.of_faststream_lazy or self.of_faststream, self.value


ROWS = {
    row.name: row
    for row in (
        Row("rpc_64", "RPC, 64 in flight", "calls/s", of_base=1.6, of_faststream=5),
        Row("rpc_1", "RPC, one at a time, p50", "us", more_is_better=False, of_base=0.85, of_faststream=0.5),
        Row("rpc_1_p99", "RPC, one at a time, p99", "us", more_is_better=False),
        Row(
            "events_core", "core events to a typed handler", "messages/s", of_base=1.5, of_faststream=15,
            of_base_lazy=1.0, of_faststream_lazy=12,
        ),
        Row("publish", "publish until the PONG", "messages/s", of_base=1.5, of_faststream=8),
        Row("durable", "durable events, pulled and acknowledged", "messages/s", of_base=3, of_faststream=12),
        Row("inprocess_1", "in-process call, one at a time", "us CPU", more_is_better=False, base="task", value=8),
        Row("inprocess_64", "in-process call, 64 in flight", "us CPU", more_is_better=False, base="task", value=8),
        Row("idle_plugin", "chain beside an idle plugin the same", "1 is yes", value=1),
        *(
            Row(name, title, unit, more_is_better=False, base="asyncio+msgspec+pluggy", of_base=1.25)
            for name, title, unit in (
                ("import_time", "import, whole process", "ms"),
                ("import_resident", "import, resident memory", "kB"),
                ("import_private", "import, private memory", "kB"),
            )
        ),
        Row("memory_server", "memory growth, server", "kB", more_is_better=False, value=1000),
        Row("memory_client", "memory growth, client", "kB", more_is_better=False, value=1000),
        Row("broadcast", "broadcast of 100 bytes to 200 sockets", "deliveries/s", base="bare ASGI", of_base=0.9),
        Row("broadcast_peer", "the same beside socket.io", "deliveries/s", base="python-socketio", of_base=4),
        Row(
            "idle_socket", "an idle socket, private memory", "kB", more_is_better=False, base="bare ASGI", of_base=1.2
        ),
    )
}  # fmt: skip
