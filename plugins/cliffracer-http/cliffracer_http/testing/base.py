"""What the parts of the contract share."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cliffracer_http.limits import Limits
from cliffracer_http.servers import AsgiServer, ServerCapabilities, bind, server_for
from cliffracer_http.settings import HttpSettings

from .probe import Probe

__all__ = ["Base", "make_certificate"]


class Base:
    """A server of some kind, and a probe behind it."""

    kind: ClassVar[str]
    """A value of `http.server`."""
    claims: ClassVar[ServerCapabilities]
    """What it must say it can."""

    @pytest.fixture
    async def probe(self) -> Probe:
        """Return an application that does what a test wants."""
        return Probe()

    def needs(self, capability: str) -> None:
        """Skip the test where the server does not claim a capability."""
        if not getattr(self.claims, capability):
            pytest.skip(f"{self.kind} lacks {capability}")

    @contextlib.asynccontextmanager
    async def serving(self, app: Any, **settings: Any) -> AsyncIterator[tuple[str, AsgiServer]]:
        """Serve an application; yields URL and server."""
        chosen = HttpSettings(**{"server": self.kind, "port": 0, **settings})
        server = server_for(chosen)
        listener, url = bind(chosen)
        await server.start(Limits(app, chosen), listener)
        try:
            yield url, server
        finally:
            if isinstance(app, Probe):
                app.release.set()
            async with asyncio.timeout(10):
                await server.stop(1.0)


def make_certificate(directory: Path, name: str) -> tuple[str, str]:
    """Make a self-signed certificate for `localhost` with the command openssl; returns the paths of it and its key."""
    certificate, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
