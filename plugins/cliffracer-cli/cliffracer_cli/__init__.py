"""The command line of Cliffracer; other plugins add commands and embedded servers through `hookspecs`."""

from .failures import ExitCode
from .hookspecs import EmbeddedServer

__all__ = ["EmbeddedServer", "ExitCode"]
