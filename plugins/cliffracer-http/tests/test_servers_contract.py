from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cliffracer_http.servers import FASTEST_FIRST, AsgiServer, choice, make_server
from cliffracer_http.testing import HttpServerContract

from cliffracer_core.errors import ConfigurationError


class Served(HttpServerContract):
    name = ""

    def make_server(self) -> AsgiServer:
        return make_server(self.name)

    def certificate(self, folder: Path) -> tuple[str, str, str]:
        chain, key = str(folder / "chain.pem"), str(folder / "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", chain, "-keyout", key],
            check=True, capture_output=True,
        )  # fmt: skip
        authority = folder / "authority.pem"
        authority.write_bytes(Path(chain).read_bytes())
        return chain, key, str(authority)


class TestHypercorn(Served):
    """The contract of HTTP servers on Hypercorn."""

    name = "hypercorn"


class TestUvicorn(Served):
    """The contract of HTTP servers on uvicorn."""

    name = "uvicorn"


class TestGranian(Served):
    """The contract of HTTP servers on Granian."""

    name = "granian"


def test_auto_takes_the_fastest_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` goes down the list until one is installed; Hypercorn always is."""
    missing: set[str] = set()
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name in missing else object())
    for name in FASTEST_FIRST:
        assert type(make_server("auto")).__name__.lower() == f"{name}server"
        missing.add(name)


def test_a_server_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; an unknown name gets the list."""
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"install cliffracer-http\[granian\]"):
        make_server("granian")
    with pytest.raises(ConfigurationError, match="hypercorn, uvicorn, granian or auto"):
        make_server("gunicorn")
