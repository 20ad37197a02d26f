"""`cluster`: three NATS servers with routes and JetStream, on free ports of the loopback."""

from __future__ import annotations

import contextlib
import json
import secrets
import urllib.request
from collections.abc import Iterator

from cliffracer_http.testing import free_ports
from cliffracer_nats import EmbeddedNats, embedded_nats

from cliffracer_core.testing import eventually

__all__ = ["Cluster", "cluster"]

NODES = ("n1", "n2", "n3")
READY_WITHIN_S = 60.0


class Cluster:
    """The running nodes, by name; made by `cluster`."""

    def __init__(self, nodes: dict[str, EmbeddedNats], monitoring: dict[str, int], token: str) -> None:
        self.nodes = nodes
        self._monitoring = monitoring
        self._token = token

    @property
    def url(self) -> str:
        """All nodes; streams made through it have three copies."""
        return ",".join(f"nats://{self._token}@127.0.0.1:{each.port}" for each in self.nodes.values()) + "?replicas=3"

    async def ready(self) -> None:
        """Return once the nodes have a leader that sees all of them up to date; streams can be made then."""
        await eventually(self._complete, READY_WITHIN_S)

    def _complete(self) -> bool:
        """Ask each node. Source: NATS documentation, "Monitoring", `/jsz`."""
        leaders, complete = set(), False
        for port in self._monitoring.values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/jsz", timeout=5) as answer:
                meta = json.load(answer).get("meta_cluster", {})
            leaders.add(meta.get("leader"))
            others = meta.get("replicas") or ()
            complete |= len(others) == len(NODES) - 1 and all(each["current"] for each in others)
        return complete and len(leaders) == 1 and None not in leaders


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Run three servers for the length of a `with` block."""
    token = secrets.token_urlsafe(16)
    with free_ports() as find, contextlib.ExitStack() as running:
        # routes must be known before any node starts, so the nodes cannot choose their ports themselves
        routes, monitoring = ({name: find() for name in NODES} for _ in range(2))
        nodes = {
            name: running.enter_context(embedded_nats(token=False, config=_config(name, token, routes, monitoring)))
            for name in NODES
        }
        yield Cluster(nodes, monitoring, token)


def _config(name: str, token: str, routes: dict[str, int], monitoring: dict[str, int]) -> str:
    """Write what one node needs beside its port and store directory."""
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for other, port in routes.items() if other != name)
    return f"""
server_name: {name}
http: "127.0.0.1:{monitoring[name]}"
authorization {{ token: "{token}" }}
cluster {{ name: faults, listen: "127.0.0.1:{routes[name]}", routes: [{others}] }}
"""
