"""Hook implementations."""

from __future__ import annotations

import pluggy

from cliffracer_core.hookspecs import hookimpl


@hookimpl
def cliffracer_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Add the hooks of `cliffracer_cli.hookspecs`: commands and embedded servers."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)
