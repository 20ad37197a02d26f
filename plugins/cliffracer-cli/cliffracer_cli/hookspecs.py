"""The hooks that the command line adds; others implement them with `@hookimpl(optionalhook=True)`.

So marked, a plugin still loads where cliffracer-cli is not installed. It needs no import of this
module either: an embedded server is any object with the three attributes of `EmbeddedServer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from cliffracer_core.hookspecs import hookspec

if TYPE_CHECKING:
    import click

__all__ = ["EmbeddedServer", "cliffracer_register_commands", "cliffracer_register_embedded_servers"]


class EmbeddedServer(Protocol):
    """A server that `cliffracer dev` runs where the setting that would name one is not set."""

    @property
    def name(self) -> str:
        """What it is, such as `nats`."""

    @property
    def setting(self) -> str:
        """The setting that its URL is for: `transport`, `store`, or a section's, such as `db.url`."""

    @property
    def start(self) -> Callable[[], AbstractContextManager[str]]:
        """Run it for the length of a `with` block, which gets its URL; import what is heavy in here."""


@hookspec
def cliffracer_register_commands() -> Sequence[click.Command]:
    """Offer commands; asked once per run of `cliffracer`, before the command runs. Since 0.1.

    Returns:
        click commands or groups. One named as a built-in command, or as another plugin's, is an error
        that names the plugin. A `CliffracerError` that a command raises becomes one line on stderr and
        the exit code that README.md lists; an `int` that it returns is the exit code.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_embedded_servers() -> Sequence[EmbeddedServer]:
    """Offer servers for development; asked once per `cliffracer dev`, before services start. Since 0.1.

    Returns:
        Servers; of several for one setting the first runs, by the plugins' names. Each starts when a
        service first needs it, on 127.0.0.1 with a generated password or token, and ends with `dev`.
    """
    raise NotImplementedError
