"""Watching files for `--reload`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

__all__ = ["changed_files"]

_SUFFIXES = (".py", ".toml")  # not data: a service that writes where it runs would start anew for ever


async def changed_files(directories: Sequence[str], relative_to: str) -> AsyncIterator[set[str]]:
    """Yield sets of files that changed, as paths from the working directory.

    Hidden directories, virtual environments and caches are not watched, nor files other than Python
    sources and TOML.
    """
    from watchfiles import Change, DefaultFilter, awatch

    by_default = DefaultFilter()

    def watched(change: Change, path: str) -> bool:
        return path.endswith(_SUFFIXES) and by_default(change, path)

    async for changes in awatch(*directories, watch_filter=watched, debounce=400, step=50):
        yield {path.removeprefix(relative_to).lstrip("/") for _, path in changes}
