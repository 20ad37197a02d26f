"""Sockets: broadcasts of 100 bytes to 200 of them, and what an idle one costs."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import time

from benchmarks.bench import Bench, Worker
from benchmarks.contestants.sockets import BARE, CLIFFRACER, OPENING, PATHS, SOCKETIO, broadcasting
from benchmarks.worker import Station, private_bytes

SOCKETS = 200
IDLE = 5_000
BURST = 20
"""Broadcasts between two turns of the loop; a server may write what it has for a socket at once."""
BYTES = 100
LAST = "."
"""Stands in the last message of a sample, and in no other."""


async def serve(station: Station) -> None:
    """Serve sockets; `broadcast <seconds> <burst>` sends for so long, `memory` says how much is used."""
    _files()
    async with broadcasting(station.contestant) as server:
        station.say(port=server.port)
        while word := await station.hear():
            if word.startswith("broadcast"):
                begun = time.perf_counter()
                count, until, burst = 0, begun + float(word.split()[1]), int(word.split()[2])
                while time.perf_counter() < until:
                    for _ in range(burst):
                        await server.send("x" * BYTES)
                    await asyncio.sleep(0)
                    count += burst
                await server.send(LAST * BYTES)
                station.say(count=count + 1, begun=begun)
            else:
                station.say(private=private_bytes(), sockets=server.sockets())


async def listen(station: Station, *, port: int, sockets: int) -> None:
    """Open sockets, say so, and say when each has the last message."""
    _files()
    held = [await _open(station.contestant, port) for _ in range(sockets)]
    station.say(open=len(held))
    while await station.hear() == "listen":
        counts = await asyncio.gather(*(_until_last(reader) for reader, _ in held))
        station.say(at=time.perf_counter(), least=min(counts), most=max(counts))


async def _open(contestant: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {PATHS[contestant]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head:
        raise ValueError(f"{contestant}: {head!r}")
    opening = OPENING.get(contestant)
    if opening is not None:
        await reader.readexactly((await reader.readexactly(2))[1] & 0x7F)
        writer.write(bytes([0x81, 0x80 | len(opening)]) + b"\0\0\0\0" + opening)
        await reader.readexactly((await reader.readexactly(2))[1] & 0x7F)
    return reader, writer


async def _until_last(reader: asyncio.StreamReader) -> int:
    """Count messages by their payloads until the last one has come; frames and quotes are no `x` and no `.`."""
    letters = dots = 0
    while dots < BYTES:
        data = await reader.read(1 << 18)
        if not data:
            raise ValueError("the server closed a socket")
        letters += data.count(b"x")
        dots += data.count(LAST.encode())
    return letters // BYTES + 1


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Deliveries a second, counted until the last client has the last message; each client has each message."""
    env = {"CLIFFRACER_PLUGINS": "http,websocket"}
    with bench.worker("measures.sockets:serve", contestant, env=env) as server:
        port = server.hear()["port"]
        with bench.worker("measures.sockets:listen", contestant, port=port, sockets=SOCKETS) as clients:
            clients.hear()
            alone, deliveries = (_broadcast(server, clients, bench.seconds, burst) for burst in (1, BURST))
            clients.say("end")
    found = {} if contestant == BARE else {"broadcast_peer": deliveries}
    if contestant == SOCKETIO:
        return found
    with bench.worker("measures.sockets:serve", contestant, env=env) as server:
        port = server.hear()["port"]
        server.say("memory")
        before = server.hear()["private"]
        with bench.worker("measures.sockets:listen", contestant, port=port, sockets=IDLE) as clients:
            clients.hear(120)
            server.say("memory")
            after = server.hear()
            if after["sockets"] != IDLE:
                raise ValueError(f"{after['sockets']} of {IDLE} sockets are open")
            clients.say("end")
    return {
        "broadcast": deliveries,
        "broadcast_alone": alone,
        **found,
        "idle_socket": (after["private"] - before) / IDLE / 1000,
    }


def _broadcast(server: Worker, clients: Worker, seconds: float, burst: int) -> float:
    clients.say("listen")
    server.say(f"broadcast {seconds} {burst}")
    sent = server.hear(seconds + 60)
    got = clients.hear(60)
    if not got["least"] == got["most"] == sent["count"]:
        raise ValueError(f"{sent['count']} were sent, and clients got {got['least']} to {got['most']}")
    return SOCKETS * float(sent["count"]) / float(got["at"] - sent["begun"])


def _files() -> None:
    """Allow as many open files as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


CONTESTANTS = (BARE, SOCKETIO, CLIFFRACER)
