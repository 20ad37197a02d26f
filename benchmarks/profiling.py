"""`profiled`: cProfile around a block, the 30 functions that take most time of their own."""

from __future__ import annotations

import contextlib
import cProfile
import io
import pstats
from collections.abc import Callable, Iterator

__all__ = ["profiled"]

TOP = 30


@contextlib.contextmanager
def profiled(wanted: bool) -> Iterator[Callable[[], str]]:
    """Profile the block where `wanted`; what is yielded returns the table afterwards."""
    if not wanted:
        yield str
        return
    profile = cProfile.Profile()

    def top() -> str:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
        return text.getvalue()

    profile.enable()
    try:
        yield top
    finally:
        profile.disable()
