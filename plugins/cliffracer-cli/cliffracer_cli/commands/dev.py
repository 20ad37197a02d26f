"""`cliffracer dev`."""

from __future__ import annotations

import click

from cliffracer_cli.embedded import EmbeddedServers
from cliffracer_cli.instructions import Instructions
from cliffracer_cli.options import serving_options, settings_options
from cliffracer_cli.running import run
from cliffracer_cli.state import State

__all__ = ["command"]

_HELP = """Run services on embedded servers, starting anew when a file changes.

As 'run'; but for whatever no setting names a URL, a server is started on 127.0.0.1, with a
generated token and storage that ends with it. 'call', 'publish' and 'services' find it when they
run in the same directory. For a debugger that reads the terminal, use --no-reload.

\b
Examples:
  cliffracer dev app:Users
  cliffracer call users.create_user name=Ada        (in another terminal)

Exit codes are those of 'run'; with --reload a start that fails waits for the next change.
"""


@click.command("dev", help=_HELP, short_help="Run services on embedded servers, reloading.", no_args_is_help=True)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE:SERVICE...")
@settings_options
@click.option("--reload/--no-reload", default=True, help="Start anew when a file changes.  [default: reload]")
@click.option("--reload-dir", multiple=True, type=click.Path(exists=True, file_okay=False), help="Watch this instead.")
@serving_options
@click.pass_obj
def command(
    state: State,
    targets: tuple[str, ...],
    transport: str | None,
    settings: dict[str, str],
    reload: bool,
    reload_dir: tuple[str, ...],
    uvloop: bool | None,
    log_level: str,
) -> int:
    """Run services on embedded servers, starting anew when a file changes."""
    with EmbeddedServers.installed() as servers:
        instructions = Instructions(
            targets=list(targets),
            transport=transport,
            settings=settings,
            offered=servers.settings,
            uvloop=uvloop,
            log_level=log_level,
            traceback=state.traceback,
        )
        return run(instructions, watch=(reload_dir or ["."]) if reload else [], urls=servers.urls)
