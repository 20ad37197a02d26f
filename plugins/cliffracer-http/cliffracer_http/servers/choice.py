"""Which server serves."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from cliffracer_core.errors import ConfigurationError

from .interface import AsgiServer, ServerCapabilities, ServerSettings

__all__ = ["FASTEST_FIRST", "check_http3", "make_server"]

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


def check_http3(settings: ServerSettings, capabilities: ServerCapabilities) -> None:
    """Refuse settings that ask for HTTP/3 where there can be none.

    Raises:
        ConfigurationError: the server cannot, there is no TLS or no port, several processes share the port, or the
            package is not installed.
    """
    if not settings.http3:
        return
    if not capabilities.http3:
        raise ConfigurationError("http.http3: only Hypercorn serves HTTP/3; set http.server to 'hypercorn'")
    if settings.unix_socket is not None:
        raise ConfigurationError("http.http3 needs a UDP port; set http.port, and no http.unix_socket")
    if settings.tls_cert is None:
        raise ConfigurationError("http.http3 needs TLS; set http.tls_cert and http.tls_key")
    if settings.reuse_port:
        raise ConfigurationError(
            "http.http3 needs a port of its own: of several processes behind one port, the one that gets a packet need "
            "not be the one that has its connection; run one worker, without http.reuse_port, or without http.http3"
        )
    if find_spec("aioquic") is None:
        raise ConfigurationError("http.http3 is set, and 'aioquic' is not installed; install cliffracer-http[http3]")


def _missing(name: str) -> str | None:
    return next((each for each in _NEEDS[name] if find_spec(each) is None), None)
