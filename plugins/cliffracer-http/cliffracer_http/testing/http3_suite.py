"""What the parts of the contract over QUIC share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliffracer_http.servers import AsgiServer

from .suite import ServerSuite

__all__ = ["Http3Suite"]


class Http3Suite(ServerSuite):
    """Base of the parts."""

    async def serve3(self, folder: Path, app: Any = None, **settings: Any) -> tuple[AsgiServer, str, str]:
        """Start a server with HTTP/3; return it, its URL, and the path of the certificate to trust."""
        self.needs("http3")
        chain, key, authority = self.certificate(folder)
        server, url = await self.serve(app, **{"tls_cert": chain, "tls_key": key, "http3": True, **settings})
        return server, url, authority
