"""An installed plugin that has nothing to do for a handler leaves its chain as it is."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.worker import Station

_PLUGIN = '''
from cliffracer_core import Middleware, hookimpl

MARK = "idle"

@hookimpl
def cliffracer_register_middleware(declaration):
    """Wrap handlers that carry a mark of ours; none does."""
    return [Middleware("guard", 0, lambda call: call, "idle") for _ in declaration.find(MARK)]

@hookimpl
def cliffracer_register_outgoing(declaration):
    """Wrap nothing."""
    return []
'''


async def explain(station: Station) -> None:
    """Say which plugins are there, and what `explain` tells of the echo handler."""
    from benchmarks.contestants.cliffracer_nats import Bench as Service
    from cliffracer_core import ServiceConfig

    async with Service(ServiceConfig("bench", transport="memory://")) as service:
        station.say(plugins=sorted(service.runtime.plugins.infos), chains=await service.explain("echo"))


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """1 where the chains are the same, else 0."""
    installed = bench.folder / "installed"
    _install(installed)
    both = f"{installed}:{bench.env['PYTHONPATH']}"
    found = []
    for plugins in ("", "idle"):
        with bench.worker(
            "measures.idle_plugin:explain", contestant, env={"CLIFFRACER_PLUGINS": plugins, "PYTHONPATH": both}
        ) as worker:
            found.append(worker.hear())
    without, beside = found
    if {"idle"} != {*beside["plugins"]} - {*without["plugins"]}:
        raise ValueError(f"the plugin was not loaded: {beside['plugins']}")
    return {"idle_plugin": float(without["chains"] == beside["chains"])}


def _install(folder: Path) -> None:
    """Lay out a distribution as an installer does."""
    info = folder / "cliffracer_idle-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / "cliffracer_idle.py").write_text(_PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cliffracer-idle\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[cliffracer]\nidle = cliffracer_idle\n")
