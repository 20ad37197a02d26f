"""Requests that are broken in every way, to a service in a process of its own: refused, others served, memory flat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cliffracer_http.testing import Raw

from .forms import Form
from .memory import MIB, needs_proc, private_bytes
from .processes import Worker

GROWTH = 2 * MIB
WARM_ROUNDS = 2
JSON = b"Content-Type: application/json\r\n"


def get(target: bytes, headers: bytes = b"") -> bytes:
    """Return a request."""
    return b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (target, headers)


def post(body: bytes, headers: bytes = JSON) -> bytes:
    """Return a request with a body."""
    return b"POST /names HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (headers, len(body), body)


def framed(lines: bytes, rest: bytes) -> bytes:
    """Return a request whose body is framed in some other way."""
    return b"POST /names HTTP/1.1\r\nHost: x\r\n%s%s\r\n\r\n%s" % (JSON, lines, rest)


WRONG = {
    "JSON that breaks off": (post(b'{"name":'), 400, "not valid JSON"),
    "JSON with something behind it": (post(b'{"name": "a"} x'), 400, "not valid JSON"),
    "a NUL": (post(b"\0"), 400, "not valid JSON"),
    "no UTF-8": (post(b'{"name": "\xff"}'), 400, "not valid UTF-8"),
    "half a surrogate": (post(b'{"name": "\\ud800"}'), 400, "not valid"),
    "another type": (post(b'{"name": 1}'), 400, "expected `str`"),
    "an array": (post(b"[]"), 400, "expected"),
    "no field": (post(b"{}"), 400, "missing"),
    "no body": (post(b""), 400, "missing"),
    "a thousand levels": (post(b'{"name":' * 1_000 + b"1" + b"}" * 1_000), 400, "expected|nests"),
    "a hundred thousand levels": (post(b"[" * 100_000), 400, "nests too deeply"),
    "text": (post(b'{"name": "a"}', b"Content-Type: text/plain\r\n"), 415, "application/json"),
    "too much": (framed(b"Content-Length: 9999999999", b""), 413, "longer"),
    "a query that is no UTF-8": (get(b"/search?q=%ff"), 400, "not UTF-8"),
    "a query that says it twice": (get(b"/search?q=a&q=b"), 400, "twice"),
    "a query of another type": (get(b"/search?q=a&page=b"), 400, "expected `int`"),
    "a query without it": (get(b"/search"), 400, "missing"),
    "a path with a NUL": (get(b"/users/%00"), 404, "nothing"),
    "a path that is no UTF-8": (get(b"/users/%ff"), 404, "nothing"),
    "a path with a line break": (get(b"/users/%0d%0aX-Evil:%20y"), 404, "nothing"),
    "a path that leads out": (get(b"/users/..%2f..%2fetc%2fpasswd"), 404, "nothing"),
    "a file that leads out": (get(b"/assets/..%2f..%2fsecret.txt"), 404, ""),
    "a file by plain dots": (get(b"/assets/../secret.txt"), 404, ""),
    "a file with a NUL": (get(b"/assets/a.txt%00.png"), 404, ""),
    "a file outside": (get(b"/assets//secret.txt"), 404, ""),
}  # fmt: skip
"""Sent, and how it is answered: status, and what its `detail` says."""
CLOSED = {
    "no HTTP": b"nonsense\r\n\r\n",
    "two lengths": framed(b"Content-Length: 12\r\nContent-Length: 13", b'{"name":"a"}'),
    "a negative length": framed(b"Content-Length: -1", b""),
    "chunks that are none": framed(b"Transfer-Encoding: chunked", b'zz\r\n{"name":"a"}\r\n0\r\n\r\n'),
    "a chunk past its size": framed(b"Transfer-Encoding: chunked", b'3\r\n{"name":"a"}\r\n0\r\n\r\n'),
    "a line break in a name": get(b"/users/7", b"X\ny: 1\r\nX y: 1\r\n"),
    "a long head": get(b"/users/7", b"X-A: " + b"a" * 200_000 + b"\r\n"),
    "many headers": get(b"/users/7", b"X-A: 1\r\n" * 200 + b"Connection: close\r\n"),
    "a long path": get(b"/users/" + b"a" * 200_000),
}
"""Sent, and answered with a 4xx after which the connection ends, or with its end alone."""


async def check_wrong(url: str, name: str) -> None:
    """Send one of the first kind: a problem that says why."""
    request, status, detail = WRONG[name]
    async with Raw(url) as raw:
        await raw.send(request)
        answer = await raw.response()
    assert answer.status == status, (name, answer)
    assert answer.headers.get("content-type") == "application/problem+json", (name, answer)
    assert "x-evil" not in answer.headers
    assert b"secret." not in answer.body.replace(b"secret.txt", b"")
    problem = json.loads(answer.body)
    said = f"{problem.get('detail')} {problem.get('errors')}"
    assert re.search(detail, said), (name, said)


async def check_closed(url: str, name: str) -> None:
    """Send one of the second kind."""
    async with Raw(url) as raw:
        try:
            await raw.send(CLOSED[name])
        except ConnectionError:
            return
        answer = await raw.ended()
    assert not answer or answer.startswith(b"HTTP/1.1 4"), (name, answer[:200])


@needs_proc
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn", "granian"])
async def test_broken_requests_are_refused_and_cost_nothing(
    server: str, unused_tcp_port: int, tmp_path: Path, form: Form, report: Callable[[str], None]
) -> None:
    """Each is a 4xx with its reason or a closed connection; another client is served between; memory is flat."""
    (tmp_path / "secret.txt").write_text("a secret.")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.txt").write_text("a")
    environment = {
        "CLIFFRACER_TRANSPORT": "memory://", "CLIFFRACER_HTTP__SERVER": server,
        "CLIFFRACER_HTTP__PORT": str(unused_tcp_port),
        "CLIFFRACER_HTTP__STATIC": json.dumps({"/assets": str(tmp_path / "assets")}),
    }  # fmt: skip
    worker = await Worker.start("target", tmp_path / "target.err", environment)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    warm = 0
    try:
        await worker.until(ready=True)
        async with httpx.AsyncClient(base_url=url) as other:
            assert (await other.get("/assets/a.txt")).text == "a"
            for round in range(WARM_ROUNDS + form.bad_rounds):
                if round == WARM_ROUNDS:
                    warm = private_bytes(worker.pid)
                for check, names in ((check_wrong, WRONG), (check_closed, CLOSED)):
                    for name in names:
                        await check(url, name)
                        assert (await other.get("/users/7")).json() == "7", name
            growth = private_bytes(worker.pid) - warm
            worker.terminate()
            assert await worker.ended() == 0
    finally:
        await worker.close()
    assert growth < GROWTH, f"{growth / MIB:.1f} MiB"
    assert "Traceback" not in worker.errors
    requests = form.bad_rounds * (len(WRONG) + len(CLOSED))
    report(f"{server}: {requests} broken requests, {growth / 1024:.0f} KiB of growth")
