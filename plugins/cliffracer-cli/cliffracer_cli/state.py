"""`State`: what the options that hold for every command said."""

from __future__ import annotations

import dataclasses

__all__ = ["State"]


@dataclasses.dataclass
class State:
    """One run of the command line; `ctx.obj` of every command."""

    traceback: bool = False
    """Show the trace of an error above its line."""
    json: bool = False
    """Errors, too, are JSON."""
