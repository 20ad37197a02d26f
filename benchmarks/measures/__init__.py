"""What is measured: one module each, with the parts that workers play and the parent's `sample`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.bench import Bench

__all__ = ["Measure", "measures"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure."""

    sample: Callable[[Bench, str], Mapping[str, float]]
    """Run it once for one contestant; rows by name."""
    contestants: tuple[str, ...] = ("nats-py", "faststream", "cliffracer")
    rounds: int | None = None
    """How often, where `--rounds` makes no sense."""


def measures() -> dict[str, Measure]:
    """Return all by name, in the order of the table."""
    from . import durable, events, idle_plugin, imports, inprocess, memory, publish, rpc, sockets

    return {
        "rpc_64": Measure(rpc.sample_64),
        "rpc_1": Measure(rpc.sample_1),
        "events_core": Measure(events.sample),
        "publish": Measure(publish.sample),
        "durable": Measure(durable.sample),
        "inprocess": Measure(inprocess.sample, ("task", "faststream", "cliffracer")),
        "idle_plugin": Measure(idle_plugin.sample, ("cliffracer",), rounds=1),
        "import": Measure(imports.sample, tuple(imports.IMPORTS)),
        "memory": Measure(memory.sample, rounds=1),
        "sockets": Measure(sockets.sample, sockets.CONTESTANTS),
    }
