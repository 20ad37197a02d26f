"""`free_ports`: ports for servers that have to know theirs before they start."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

__all__ = ["free_ports"]


@contextlib.contextmanager
def free_ports() -> Iterator[Callable[[], int]]:
    """Yield a function that finds a port of 127.0.0.1 which nobody else is given as long as the block runs.

    On Linux a socket that is bound and does not listen holds each of them: port 0 becomes none of these, while a
    server that sets SO_REUSEADDR may listen there, and again after its end.
    """
    with contextlib.ExitStack() as held:

        def find() -> int:
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port: int = holder.getsockname()[1]
            if sys.platform != "linux":
                holder.close()  # it would keep the server away, too
            return port

        yield find
