"""`cliffracer _worker`: one of several processes, started by `run --workers`, `run --reload` and `dev`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cliffracer_cli.channel import Channel, Report
from cliffracer_cli.instructions import Instructions
from cliffracer_cli.running import serve
from cliffracer_cli.state import State
from cliffracer_core.service import CliffracerService

__all__ = ["command"]

MARGIN_S = 5.0
"""Beyond what its services may take to stop, before a worker counts as stuck."""


@click.command("_worker", hidden=True)
@click.argument("targets", nargs=-1)
@click.pass_obj
def command(state: State, targets: tuple[str, ...]) -> int:
    """Serve what the parent says; TARGETS are for those who look at the list of processes."""
    channel = Channel()
    instructions = channel.receive(Instructions)
    state.traceback = instructions.traceback

    def on_ready(services: Sequence[CliffracerService]) -> None:
        grace_s = sum(each.runtime.settings.kernel.shutdown_grace_s for each in services)
        channel.send(Report(ready=grace_s + MARGIN_S))

    return serve(instructions, channel.urls, on_loaded=channel.stop_with_parent, on_ready=on_ready)
