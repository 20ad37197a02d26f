"""What is measured: one module each, with the parts that workers play and the parent's `sample`."""

from __future__ import annotations

from benchmarks.contestants import COLUMNS
from benchmarks.suite import Measure

__all__ = ["measures"]


ALL = tuple(COLUMNS)


def measures() -> dict[str, Measure]:
    """Return all by name, in the order of the table."""
    from . import durable, events, idle_plugin, imports, inprocess, memory, publish, rpc, sockets

    return {
        "rpc_64": Measure(rpc.sample_64, ALL),
        "rpc_1": Measure(rpc.sample_1, ALL),
        "events_core": Measure(events.sample, ALL),
        "publish": Measure(publish.sample, ALL),
        "durable": Measure(durable.sample, ALL),
        "inprocess": Measure(inprocess.sample, ("task", "faststream", "cliffracer")),
        "idle_plugin": Measure(idle_plugin.sample, ("cliffracer",), rounds=1),
        "import": Measure(imports.sample, tuple(imports.IMPORTS)),
        "memory": Measure(memory.sample, ALL, rounds=1),
        "sockets": Measure(sockets.sample, sockets.CONTESTANTS),
    }
