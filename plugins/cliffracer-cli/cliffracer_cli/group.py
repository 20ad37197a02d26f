"""The group of all commands: built-in ones, each imported when it is needed, and those of plugins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module

import click

from cliffracer_core.assembly import load_plugins
from cliffracer_core.errors import CliffracerError, PluginError

from .failures import failure_line
from .options import version_text
from .state import State

__all__ = ["BUILTIN", "make_cli"]

BUILTIN = (
    "new",
    "run",
    "dev",
    "call",
    "publish",
    "services",
    "dlq",
    "client",
    "contract",
    "asyncapi",
    "explain",
    "plugins",
    "version",
)
_HIDDEN = ("_worker",)
_WITHOUT_PLUGINS = ("plugins", "version", *_HIDDEN)
"""Commands that work where a plugin is broken."""

_HELP = """Run, call and inspect microservices.

\b
Examples:
  cliffracer dev app:Users                     on an embedded NATS, reloading
  cliffracer run app:Users --transport nats://localhost:4222
  cliffracer call users.create_user name=Ada email=ada@example.com
  cliffracer services --watch

\b
Exit codes:
  0    done
  1    the service answered with an error, or the command failed
  2    wrong usage
  3    a setting, a declaration or a plugin is wrong
  4    nobody there: no broker, wrong credentials, or no handler
  5    the deadline passed
  130  Ctrl-C

Settings come from cliffracer.toml or pyproject.toml, the environment (NATS_URL, CLIFFRACER_TRANSPORT, ...),
and the options of a command; 'cliffracer plugins' shows them.
"""


class CommandGroup(click.Group):
    """All commands."""

    _added: Mapping[str, click.Command] | None = None
    _trouble: str = ""

    def added(self) -> Mapping[str, click.Command]:
        """Return the plugins' commands by name.

        Raises:
            PluginError: a plugin is broken, or its command clashes with another.
        """
        if self._added is None:
            self._added = _plugin_commands()
        return self._added

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names to list, built-in ones first; a broken plugin hides those of all plugins."""
        try:
            return [*BUILTIN, *sorted(self.added())]
        except CliffracerError as error:
            self._trouble = failure_line(error)
            return list(BUILTIN)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None where there is none of this name."""
        if cmd_name in BUILTIN or cmd_name in _HIDDEN:
            module = import_module(f"cliffracer_cli.commands.{cmd_name.removeprefix('_')}")
            command = module.command
            assert isinstance(command, click.Command)
            return command
        return None if self._trouble else self.added().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find what the arguments name. Raises PluginError where a plugin is broken, UsageError for no command."""
        if not ctx.resilient_parsing and args[0] not in _WITHOUT_PLUGINS:
            near = difflib.get_close_matches(args[0], [*BUILTIN, *self.added()], n=1)
            if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
                remedy = f"did you mean {near[0]!r}?" if near else "a plugin that adds it may not be installed"
                ctx.fail(f"no such command {args[0]!r}; {remedy}")
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say so where the plugins' commands could not be listed."""
        if self._trouble:
            with formatter.section("Commands of plugins are missing"):
                formatter.write_text(self._trouble)


def _plugin_commands() -> dict[str, click.Command]:
    plugins = load_plugins()
    commands: dict[str, click.Command] = {}
    owners = dict.fromkeys((*BUILTIN, *_HIDDEN), "cli")
    if not plugins.is_active("cli"):  # disabled, and with it the hook
        return {}
    for plugin, command in plugins.ask("cliffracer_register_commands"):
        if not isinstance(command, click.Command) or not command.name:
            raise PluginError(f"plugin {plugin!r}: {command!r} is no click command with a name; return such")
        if command.name in owners:
            other = "a built-in one" if owners[command.name] == "cli" else f"one of plugin {owners[command.name]!r}"
            raise PluginError(
                f"plugin {plugin!r}: its command {command.name!r} clashes with {other}; "
                f"rename it, or disable the plugin with CLIFFRACER_DISABLE={plugin}"
            )
        owners[command.name] = plugin
        commands[command.name] = command
    return commands


def make_cli() -> CommandGroup:
    """Make the group."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(State).traceback = True

    def show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(version_text())
            ctx.exit()

    return CommandGroup(
        "cliffracer",
        help=_HELP,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        params=[
            click.Option(["--traceback"], is_flag=True, expose_value=False, callback=remember, is_eager=True,
                         help="Show the trace of an error."),
            click.Option(["--version"], is_flag=True, expose_value=False, callback=show_version, is_eager=True,
                         help="Show the version and exit."),
        ],
    )  # fmt: skip
