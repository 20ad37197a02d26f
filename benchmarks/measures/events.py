"""Core events: one flood of messages, the same for all, into a typed handler.

The publisher is a plain socket that sends what was encoded beforehand. It keeps at most `WINDOW` messages
ahead of the handler, which tells over a pipe how far it is, so that no limit for slow consumers is near:
nats-py drops past 524,288 messages, Cliffracer past 65,536, nats-server past 64 MiB.
"""

from __future__ import annotations

import json
import os
import socket
import time
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.contestants import EVENTS, find
from benchmarks.payload import FIRST, SIZE, body
from benchmarks.tally import Tally
from benchmarks.worker import Station

RING = 65_536
STEP = 1024
WINDOW = 32 * STEP
MOST = 4_000_000


async def receive(station: Station, *, acks: int) -> None:
    """Count what comes until the parent says how many there were."""
    tally = Tally(RING, STEP, acks)
    async with find(station.contestant).receive(station.url, tally):
        station.say(ready=True)
        sent = int(await station.hear())
        await tally.expect(sent, within_s=30)
        station.say(events_core=tally.rate())


async def flood(station: Station, *, acks: int, seconds: float) -> None:
    """Send for so many seconds, never more than a window ahead."""
    line = b"PUB %s %d\r\n%s\r\n"
    pieces = [
        b"".join(line % (EVENTS.encode(), SIZE, body(FIRST + number)) for number in range(start, start + STEP))
        for start in range(0, RING, STEP)
    ]
    with _connect(station.url) as server:
        sent = handled = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until and sent < MOST:
            if sent - handled >= WINDOW:
                handled += STEP * len(os.read(acks, 64))
            else:
                server.sendall(pieces[sent // STEP % len(pieces)])
                sent += STEP
        _ping(server)
    station.say(sent=sent)


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    server = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222))
    options = {"verbose": False, "pedantic": False, "lang": "bench", "version": "1", "auth_token": parts.username}
    server.sendall(b"CONNECT %s\r\n" % json.dumps(options).encode())
    _ping(server)
    return server


def _ping(server: socket.socket) -> None:
    server.sendall(b"PING\r\n")
    heard = b""
    while b"PONG\r\n" not in heard:
        piece = server.recv(65536)
        if not piece or b"-ERR" in piece:
            raise ConnectionError(f"the server closed: {piece!r}")
        heard += piece


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Messages per second, from the first to the last handled."""
    read, write = os.pipe()
    try:
        with bench.worker("measures.events:receive", contestant, acks=write, pass_fds=[write]) as receiver:
            receiver.hear()
            with bench.worker(
                "measures.events:flood", "nobody", acks=read, seconds=bench.seconds * 1.25, pass_fds=[read]
            ) as publisher:
                sent = publisher.hear()["sent"]
                receiver.say(str(sent))
                return receiver.hear()
    finally:
        os.close(read)
        os.close(write)
