"""How much each test does: reduced, or in full with `CLIFFRACER_FAULTS=full`."""

from __future__ import annotations

import msgspec

__all__ = ["FORMS", "Form"]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one form; README.md has them as a table."""

    calls: int
    """That are over before a replica is killed or a server restarted, and again after it."""
    terminations: int
    """SIGTERMs to a replica under load."""
    restarts: int
    """Of the NATS server; every second one is a `kill -9`."""
    cluster_events: int
    """That flow while the leader of their stream is killed."""
    cancellations: int
    """Of each kind, over each transport."""
    sockets: int
    """That are open, half of them at each replica."""
    stops: int
    """SIGTERMs to a replica with sockets."""
    listeners: int
    """Sockets of which one in twenty does not read."""
    ticks: int
    """Messages to each of them over which a percentile is taken."""
    tick_s: float
    """From one of these messages to the next."""
    bounds: bool
    """Whether the percentile is held against its bound; on a few sockets and messages it says nothing."""
    upload_mib: int
    """Of a file that is sent over HTTP."""
    slow_clients: int
    """Of each kind, that attack a service over HTTP."""
    bad_rounds: int
    """In each of which all broken requests are sent."""
    outage_s: float
    """For which the NATS server is away from them."""


FORMS = {
    "reduced": Form(
        calls=1_000,
        terminations=3,
        restarts=2,
        cluster_events=1_000,
        cancellations=10,
        sockets=10,
        stops=1,
        listeners=100,
        ticks=20,
        tick_s=0.01,
        bounds=False,
        upload_mib=64,
        slow_clients=50,
        bad_rounds=3,
        outage_s=2.0,
    ),
    "full": Form(
        calls=10_000,
        terminations=20,
        restarts=10,
        cluster_events=10_000,
        cancellations=200,
        sockets=100,
        stops=20,
        listeners=1_000,
        ticks=100,
        tick_s=0.05,
        bounds=True,
        upload_mib=1_024,
        slow_clients=100,
        bad_rounds=100,
        outage_s=10.0,
    ),
}
