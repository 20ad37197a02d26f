"""The contract of HTTP servers, as tests."""

from __future__ import annotations

from .contract import HttpServerContract
from .ports import free_ports
from .raw import Raw, RawResponse

__all__ = ["HttpServerContract", "Raw", "RawResponse", "free_ports"]
