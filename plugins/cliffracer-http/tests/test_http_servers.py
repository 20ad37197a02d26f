"""Every server keeps the contract; what one lacks stands here."""

from __future__ import annotations

from cliffracer_http.servers import ServerCapabilities
from cliffracer_http.testing import HttpServerContract

ALL = ServerCapabilities(
    http2=True, header_limit=True, header_timeout=True, silence_timeout=True, keep_alive_timeout=True,
    send_timeout=True, tls_reload=True, prompt_stop=True, cuts=True,
)  # fmt: skip


class TestHypercorn(HttpServerContract):
    kind = "hypercorn"
    claims = ALL


class TestUvicorn(HttpServerContract):
    kind = "uvicorn"
    claims = ServerCapabilities(
        header_limit=True, header_timeout=True, silence_timeout=True, keep_alive_timeout=True,
        send_timeout=True, tls_reload=True, close_codes=True, prompt_stop=True, cuts=True,
    )  # fmt: skip


class TestGranian(HttpServerContract):
    kind = "granian"
    claims = ServerCapabilities(http2=True, header_limit=True, header_timeout=True)
