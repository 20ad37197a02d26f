"""Target: takes names, small bodies and large files, for clients that mean it no good."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cliffracer_http import UploadFile, get, post

from cliffracer_core import CliffracerService

from .serving import serve

TAKEN = 2 * 1024**3
"""Bytes of a file that are taken."""
PAGE = 64 * 1024


class Target(CliffracerService):
    """Says what it was given."""

    name = "target"
    version = "1.0.0"

    @get("/users/{id}")
    async def user(self, id: str) -> str:
        """Answer at once."""
        return id

    @get("/search")
    async def search(self, q: str, page: int = 1) -> str:
        """Take a query."""
        return f"{q} {page}"

    @post("/names")
    async def name_it(self, name: str) -> str:
        """Take a body of the size that is allowed by default."""
        return name

    @get("/pages/{count}")
    async def pages(self, count: int) -> AsyncIterator[bytes]:
        """Send so many pages of 64 KiB, as fast as the client takes them."""
        for _ in range(count):
            yield bytes(PAGE)

    @post("/files", max_body_bytes=TAKEN)
    async def keep(self, file: UploadFile) -> int | None:
        """Take a file, and say how large it was."""
        return file.size


if __name__ == "__main__":
    serve(Target)
