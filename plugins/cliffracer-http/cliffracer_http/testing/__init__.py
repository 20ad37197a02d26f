"""The contract of an ASGI server; needs pytest."""

from .contract import HttpServerContract
from .probe import Probe
from .raw import Connection, Response

__all__ = ["Connection", "HttpServerContract", "Probe", "Response"]
