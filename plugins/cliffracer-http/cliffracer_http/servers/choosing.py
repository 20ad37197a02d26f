"""Which server serves."""

from __future__ import annotations

import importlib.util

from cliffracer_core.errors import ConfigurationError
from cliffracer_http.settings import HttpSettings

from .certificates import check_certificates
from .interface import AsgiServer

__all__ = ["SERVERS", "server_for"]

SERVERS = ("granian", "uvicorn", "hypercorn")
"""The fastest first."""


def server_for(settings: HttpSettings) -> AsgiServer:
    """Return the configured server, unstarted.

    Raises:
        ConfigurationError: it is not installed, or its certificate cannot be used.
    """
    name: str = settings.server
    if name == "auto":
        name = next(each for each in SERVERS if _is_installed(each))
    elif not _is_installed(name):
        raise ConfigurationError(
            f"http.server is {name!r}, which is not installed; pip install 'cliffracer-http[{name}]', or set another"
        )
    check_certificates(settings)
    return _make(name, settings)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _make(name: str, settings: HttpSettings) -> AsgiServer:
    if name == "granian":
        from .granian import GranianServer

        return GranianServer(settings)
    if name == "uvicorn":
        from .uvicorn import UvicornServer

        return UvicornServer(settings)
    from .hypercorn import HypercornServer

    return HypercornServer(settings)
