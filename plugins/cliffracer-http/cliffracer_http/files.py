"""Files as responses: whole, in the ranges that are asked for, or not at all where the client has them."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse as StarletteFileResponse
from starlette.responses import Response

from .etags import not_modified

__all__ = ["FileResponse"]

_SPEC = re.compile(r"(\d{1,18})-(\d{0,18})|-(\d{1,18})").fullmatch
_MOST_RANGES = 100
_OF_CONTENT = ("content-length", "content-type", "content-disposition")


class FileResponse(StarletteFileResponse):
    """Starlette's, and as RFC 9110 has it (sections 13 and 14).

    A client whose `If-None-Match` names the file as it is gets 304. Of several ranges those that the file has are
    sent; where it has none of them that is a 416. A `Range` in another unit, or one that cannot be read, is ignored.

    Raises:
        HTTPException: 416.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as ASGI 3."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and self.status_code == 200:
            if self.stat_result is None:
                self.stat_result = await asyncio.to_thread(_stat, self.path)
            if self.stat_result is not None:
                self.set_stat_headers(self.stat_result)
                if not_modified(scope, self.headers["etag"].strip('"')):
                    kept = {name: value for name, value in self.headers.items() if name not in _OF_CONTENT}
                    await Response(status_code=304, headers=kept)(scope, receive, send)
                    return
                scope = {**scope, "headers": self._asked(scope["headers"], self.stat_result.st_size)}
        await super().__call__(scope, receive, send)

    def _asked(self, headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
        """Return a request's headers with no ranges but those that a file of this size has."""
        given = [value for name, value in headers if name == b"range"]
        version = [value.decode("latin-1") for name, value in headers if name == b"if-range"]
        others = [each for each in headers if each[0] not in (b"range", b"if-range")]
        asked = _ranges(given[0].decode("latin-1"), size) if len(given) == 1 else None
        if asked is None or any(each not in (self.headers["etag"], self.headers["last-modified"]) for each in version):
            return others
        if not asked:
            raise HTTPException(416, f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
        return [*others, (b"range", f"bytes={','.join(asked)}".encode("ascii"))]


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what is known of a file; None of what is none, which Starlette says."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _ranges(text: str, size: int) -> list[str] | None:
    """Return those of the ranges that a file of this size has; None for what is to be ignored."""
    unit, _, listed = text.partition("=")
    parts = [each.strip() for each in listed.split(",")]
    matches = [_SPEC(each) for each in parts]
    if unit.strip().lower() != "bytes" or len(parts) > _MOST_RANGES:
        return None
    found: list[str] = []
    for each in matches:
        if each is None or (each[2] and int(each[2]) < int(each[1])):
            return None
        if (int(each[3]) > 0 and size > 0) if each[3] else int(each[1]) < size:
            found.append(each[0])
    return found
