"""Broken requests on raw sockets, at both servers: a 4xx or a closed connection, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cliffracer_http import get, post

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.testing import unique


class Target(CliffracerService):
    @get("/users/{id}")
    async def user(self, id: str) -> str:
        return id

    @get("/files/{path:path}")
    async def file(self, path: str) -> str:
        return path

    @post("/names")
    async def name_it(self, name: str) -> str:
        return name


@pytest.fixture(params=["uvicorn", "hypercorn", "granian"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    http = {"port": 0, "server": request.param, "body_timeout_s": 0.3, "max_headers": 20}
    service: Any = Target(ServiceConfig(unique(), http=http))
    async with service:
        yield int(service.http.url.rsplit(":", 1)[1])


async def talk(port: int, data: bytes) -> bytes:
    """Send bytes, and return what comes back until the server closes or has answered one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            return head + (await reader.readexactly(int(length[1])) if length else b"")
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


def status(answer: bytes) -> int:
    """Return the status code; 0 where the connection was closed without one."""
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else 0


def line(target: bytes, method: bytes = b"GET", headers: bytes = b"", body: bytes = b"") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + body


@pytest.mark.parametrize(
    "target",
    [
        b"/users/%00", b"/users/a%ff", b"/users/%c3%28", b"/users/\xff", b"/users/%0d%0aX-Evil:%20y", b"/users/a%2fb",
        b"/users/%2e%2e", b"/files/../../etc/passwd", b"/files/a/%2e%2e/%2e%2e/etc/passwd", b"/files/..%2f..%2fetc",
        b"//users/7", b"/users", b"/users/", b"/users/7/", b"/users/" + b"/" * 500, b"/" + b"a/" * 5000,
    ],
)  # fmt: skip
async def test_path_is_refused_when_no_honest_client_sends_it(port: int, target: bytes) -> None:
    """NUL, bytes that are no UTF-8, line breaks, dots, slashes: a 4xx, nothing of it in a header."""
    answer = await talk(port, line(target))
    assert 400 <= status(answer) < 500, answer[:200]
    assert b"X-Evil" not in answer.partition(b"\r\n\r\n")[0]
    assert status(await talk(port, line(b"/users/7"))) == 200


@pytest.mark.parametrize(
    "request_",
    [
        line(b"/names", b"POST", b"Content-Length: 12\r\nContent-Length: 13\r\n", b'{"name":"a"}'),
        line(b"/names", b"POST", b"Content-Length: -1\r\n"),
        line(b"/names", b"POST", b"Content-Length: ten\r\n"),
        line(b"/names", b"POST", b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
        line(b"/names", b"POST", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        line(b"/names", b"POST", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
        line(b"/users/7", b"GET", b"X y: z\r\n"),
        line(b"/users/7", b"G E T"),
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n",
    ],
)
async def test_request_is_refused_when_its_framing_is_broken(port: int, request_: bytes) -> None:
    """Lengths that lie or disagree, bad chunks, bad headers, no HTTP at all: a 4xx or 5xx of the server, or closed."""
    answer = await talk(port, request_)
    assert status(answer) in (0, 505) or 400 <= status(answer) < 500, answer[:200]
    assert status(await talk(port, line(b"/users/7"))) == 200


HOSTS = [
    (b"", b"1.1", 400), (b"Host:\r\n", b"1.1", 400), (b"Host: a\r\nX: y\r\nHost: b\r\n", b"1.1", 400),
    (b"Host: a/b\r\n", b"1.1", 400), (b"Host: <a b>\r\n", b"1.1", 400), (b"Host: [::1]:80\r\n", b"1.1", 200),
    (b"", b"1.0", 200),
]  # fmt: skip


async def test_request_is_refused_when_it_does_not_name_one_host(port: int) -> None:
    """HTTP/1.1 asks for one `Host`, also of what nobody serves and of the health pages; HTTP/1.0 does not."""
    for hosts, version, expected in HOSTS:
        for target in (b"/users/7", b"/health", b"/nowhere"):
            answer = await talk(port, b"GET " + target + b" HTTP/" + version + b"\r\n" + hosts + b"\r\n")
            assert status(answer) == (404 if expected == 200 and target == b"/nowhere" else expected), answer[:300]


async def test_handler_does_not_run_when_the_body_ends_too_early(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """A client that announces more than it sends and goes away: nobody is called, nothing is logged as a failure."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line(b"/names", b"POST", b"Content-Length: 100\r\n", b'{"name":"a"}'))
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await reader.read()
    assert status(await talk(port, line(b"/users/7"))) == 200
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("sent", [b"", b'{"name":', b'{"name":"a"}'])
async def test_request_is_given_up_when_its_body_stalls(port: int, sent: bytes) -> None:
    """A body that stops coming is a 408 after `body_timeout_s`; others are served meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line(b"/names", b"POST", b"Content-Length: 100\r\n", sent))
    assert status(await talk(port, line(b"/users/7"))) == 200
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert status(head) == 408
    writer.close()


@pytest.mark.parametrize("target", [b"/users/7", b"/nowhere"])
async def test_request_is_refused_when_it_has_too_many_headers(port: int, target: bytes) -> None:
    """431 past `max_headers`."""
    many = b"".join(b"X-H%d: 1\r\n" % number for number in range(30))
    answer = await talk(port, line(target, b"GET", many))
    assert status(answer) == 431
    assert b"headers_too_large" in answer


async def test_requests_are_answered_in_order_when_they_are_pipelined(port: int) -> None:
    """Several requests in one write, answers in their order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(line(b"/users/%d" % number) for number in range(5)))
    seen: list[bytes] = []
    async with asyncio.timeout(10):
        for _ in range(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            seen.append(await reader.readexactly(int(length[1])))
    writer.close()
    assert seen == [b'"%d"' % number for number in range(5)]
