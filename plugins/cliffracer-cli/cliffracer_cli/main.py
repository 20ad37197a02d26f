"""`main`: run a command, and turn whatever it raises into a line on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from .failures import ExitCode, exit_code, failure_json, failure_line
from .group import make_cli
from .state import State

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; the process's own where None.

    Returns:
        The exit code; README.md lists them.
    """
    state = State()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = make_cli().main(given, prog_name="cliffracer", standalone_mode=False, obj=state)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.INTERRUPTED  # click has ended the terminal's ^C line
    except Exception as error:
        state.json = state.json or (isinstance(error, click.UsageError) and "--json" in given)  # not parsed so far
        _show(error, state)
        return exit_code(error)
    return result if isinstance(result, int) and not isinstance(result, bool) else ExitCode.OK


def _show(error: Exception, state: State) -> None:
    if state.traceback:
        sys.stderr.write("".join(traceback.format_exception(error)))
    if state.json:
        click.echo(failure_json(error), err=True)
    else:
        click.echo(f"error: {failure_line(error)}", err=True)
