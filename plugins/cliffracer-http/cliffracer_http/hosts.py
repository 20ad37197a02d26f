"""The `Host` header: HTTP/1.1 asks for exactly one (RFC 9112, section 3.2)."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["Hosts"]

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]+").fullmatch
_MOST = 1000


class Hosts:
    """Tells requests that name their host from others; not every server's parser does."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        """Values that were found good; most requests send the same."""

    def allow(self, headers: Any, scope: Any) -> bool:
        """Tell whether a request has one `Host` that names one, or is not of HTTP/1.1; see RFC 9110, section 4.2.1."""
        count, host = 0, b""
        for name, value in headers:
            if name == b"host":
                count += 1
                host = value
        if count == 1 and host in self._known:
            return True
        return scope.get("http_version") != "1.1" or (count == 1 and self._check(host))

    def _check(self, host: bytes) -> bool:
        if not _HOST(host):
            return False
        if len(self._known) < _MOST:
            self._known.add(host)
        return True
