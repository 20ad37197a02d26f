"""Which server serves."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from cliffracer_core.errors import ConfigurationError

from .interface import AsgiServer

__all__ = ["FASTEST_FIRST", "make_server"]

FASTEST_FIRST = ("uvicorn", "granian", "hypercorn")
"""In the order in which `auto` takes them, by requests per second of an application that does little."""
_CLASSES = {"hypercorn": "HypercornServer", "uvicorn": "UvicornServer", "granian": "GranianServer"}
_NEEDS = {"hypercorn": ("hypercorn",), "uvicorn": ("uvicorn", "httptools"), "granian": ("granian",)}


def make_server(name: str) -> AsgiServer:
    """Return a server, unstarted.

    Args:
        name: `hypercorn`, `uvicorn`, `granian`, or `auto` for the fastest that is installed.

    Raises:
        ConfigurationError: there is none of this name, or it is not installed.
    """
    if name == "auto":
        name = next(each for each in FASTEST_FIRST if _missing(each) is None)
    if name not in _CLASSES:
        raise ConfigurationError(f"http.server: there is no {name!r}; take one of {', '.join(_CLASSES)} or auto")
    missing = _missing(name)
    if missing is not None:
        raise ConfigurationError(
            f"http.server is {name!r}, and {missing!r} is not installed; install cliffracer-http[{name}]"
        )
    server: AsgiServer = getattr(import_module(f".{name}", __package__), _CLASSES[name])()
    return server


def _missing(name: str) -> str | None:
    return next((each for each in _NEEDS[name] if find_spec(each) is None), None)
