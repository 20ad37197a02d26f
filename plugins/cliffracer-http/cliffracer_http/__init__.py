"""HTTP for Cliffracer: typed routes on any ASGI server."""

from .settings import HttpSettings

__all__ = ["HttpSettings"]
