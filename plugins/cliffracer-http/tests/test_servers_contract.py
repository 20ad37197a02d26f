from __future__ import annotations

from pathlib import Path

import trustme
from cliffracer_http.servers import AsgiServer, make_server
from cliffracer_http.testing import HttpServerContract


class Served(HttpServerContract):
    name = ""

    def make_server(self) -> AsgiServer:
        return make_server(self.name)

    def certificate(self, folder: Path) -> tuple[str, str, str]:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        paths = [folder / name for name in ("chain.pem", "key.pem", "authority.pem")]
        for number, blob in enumerate(issued.cert_chain_pems):
            with paths[0].open("ab" if number else "wb") as chain:
                chain.write(blob.bytes())
        issued.private_key_pem.write_to_path(paths[1])
        authority.cert_pem.write_to_path(paths[2])
        return str(paths[0]), str(paths[1]), str(paths[2])


class TestHypercorn(Served):
    """The contract of HTTP servers on Hypercorn."""

    name = "hypercorn"


class TestUvicorn(Served):
    """The contract of HTTP servers on uvicorn."""

    name = "uvicorn"


class TestGranian(Served):
    """The contract of HTTP servers on Granian."""

    name = "granian"
