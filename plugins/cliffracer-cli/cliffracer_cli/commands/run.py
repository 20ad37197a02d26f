"""`cliffracer run`."""

from __future__ import annotations

import click

from cliffracer_cli.instructions import Instructions
from cliffracer_cli.options import serving_options, settings_options
from cliffracer_cli.running import run
from cliffracer_cli.state import State

__all__ = ["command"]

_HELP = """Run services until SIGTERM or Ctrl-C.

MODULE:SERVICE is a service class or object; the module alone where it defines one service only.
Several run together in one process. On SIGTERM they finish what they have accepted and the exit
code is 0; a second signal ends the process at once.

\b
Examples:
  cliffracer run app:Users --transport nats://localhost:4222
  cliffracer run users orders:Orders --set timeout=5 --set nats.connect_timeout_s=2
  cliffracer run app:Users --workers 4

\b
Exit codes, where the start fails:
  1  the program fails      3  a setting, a declaration or a plugin is wrong
  2  no such target         4  the broker cannot be reached, or refuses the credentials
With --workers it is that of the first worker that fails before it was ever ready.
"""


@click.command("run", help=_HELP, short_help="Run services.", no_args_is_help=True)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE:SERVICE...")
@settings_options
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Run N processes; one that ends is replaced.")
@click.option("--reload", is_flag=True, help="Start anew when a file changes (for development).")
@click.option("--reload-dir", multiple=True, type=click.Path(exists=True, file_okay=False), help="Watch this instead.")
@serving_options
@click.pass_obj
def command(
    state: State,
    targets: tuple[str, ...],
    transport: str | None,
    settings: dict[str, str],
    workers: int | None,
    reload: bool,
    reload_dir: tuple[str, ...],
    uvloop: bool | None,
    log_level: str,
) -> int:
    """Run services until SIGTERM or Ctrl-C."""
    if workers is not None and (reload or reload_dir):
        raise click.UsageError("--workers and --reload exclude each other; use one")
    instructions = Instructions(
        targets=list(targets),
        transport=transport,
        settings=settings,
        uvloop=uvloop,
        log_level=log_level,
        traceback=state.traceback,
    )
    return run(instructions, workers=workers, watch=reload_dir or (["."] if reload else []))
