"""CORS and compression give what Starlette's own give, whether a request takes the short way or not."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from cliffracer_http import Reply, answers, get
from cliffracer_http.shortcuts import Shortcut, compressing, cross_origin
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from cliffracer_core import CliffracerService

ORIGIN = "https://app.example.com"
Headers = list[tuple[bytes, bytes]]


OPTIONS: list[dict[str, Any]] = [
    {"allow_origins": [ORIGIN]},
    {"allow_origins": ["*"]},
    {"allow_origins": [ORIGIN, "https://b.example.com"], "allow_credentials": True, "expose_headers": ["X-A", "X-B"]},
    {"allow_origins": ["*"], "allow_credentials": True},
]


async def answer(app: Any, headers: Headers, method: str = "GET") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": "/", "headers": headers}, receive, send)
    return sent


def plain(messages: list[dict[str, Any]]) -> list[Any]:
    """Return status, sorted headers and the body, unpacked; gzip's own bytes hold the time."""
    body = b"".join(each.get("body", b"") for each in messages)
    headers: dict[bytes, bytes] = {}  # two of a name are one list
    for name, value in messages[0]["headers"]:
        headers[name] = headers[name] + b", " + value if name in headers else value
    headers.pop(b"content-length", None)
    packed = headers.get(b"content-encoding") == b"gzip"
    return [messages[0]["status"], headers, gzip.decompress(body) if packed else body]


class Streaming:
    """An application that sends its body in parts."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("headers", [[], [(b"origin", ORIGIN.encode())], [(b"origin", b"https://evil.example.com")]])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("options", OPTIONS)
async def test_cross_origin_answers_as_starlette_does(headers: Headers, method: str, options: dict[str, Any]) -> None:
    """With and without an origin, asked first or not; also where the response has such headers of its own.

    Only the id is ours, which the answer to a preflight has too.
    """
    asked = [*headers, (b"access-control-request-method", b"GET")] if method == "OPTIONS" else headers
    response = Response("x", headers={"Vary": "Accept", "Access-Control-Allow-Origin": "https://other.example.com"})
    ours, theirs = cross_origin(response, **options), CORSMiddleware(response, **options)
    mine = plain(await answer(ours, asked, method))
    assert (mine[1].pop(b"x-correlation-id", None) is not None) is (headers != [] and method == "OPTIONS")
    assert mine == plain(await answer(theirs, asked, method))


@pytest.mark.parametrize(("options", "lines"), [(OPTIONS[1], b"access-control-allow-origin: *"), (OPTIONS[3], b"")])
async def test_cross_origin_knows_its_headers_beforehand_when_they_are_the_same_for_all(
    options: dict[str, Any], lines: bytes
) -> None:
    """With `*`, unless credentials make each response name its origin."""
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append(send)

    await answer(cross_origin(app, **options), [(b"origin", ORIGIN.encode())])
    assert getattr(given[0], "lines", b"").startswith(lines)
    assert isinstance(given[0], Shortcut) is bool(lines)


async def test_a_response_that_is_sent_again_gathers_no_headers() -> None:
    """Middleware writes into copies."""
    response = Response("x" * 500)
    app = cross_origin(compressing(response, 100), allow_origins=[ORIGIN])
    first, second = [plain(await answer(app, [(b"accept-encoding", b"gzip")])) for _ in range(2)]
    assert first == second
    assert first[2] == b"x" * 500
    assert not [name for name, _ in response.raw_headers if name in (b"vary", b"content-encoding")]


async def test_compressing_heeds_what_starlette_does_not() -> None:
    """A refused gzip; a tag, which must tell the bytes apart; a range; the length of what HEAD is not sent."""
    gzip_ = [(b"accept-encoding", b"gzip")]

    async def headers_of(*given: Any, accepted: Headers = gzip_, method: str = "GET") -> dict[bytes, bytes]:
        start = (await answer(compressing(Response("x" * 1000, *given), 100), accepted, method))[0]
        return dict(start["headers"])

    assert b"content-encoding" not in await headers_of(accepted=[(b"accept-encoding", b"gzip;q=0, br")])
    tagged = await headers_of(200, {"ETag": '"a"'})
    assert (tagged[b"content-encoding"], tagged[b"etag"]) == (b"gzip", b'W/"a"')
    assert (await headers_of(200, {"ETag": 'W/"a"'}))[b"etag"] == b'W/"a"'
    assert (await headers_of(200, {"ETag": '"a"'}, accepted=[]))[b"etag"] == b'"a"'
    assert (await headers_of(200, {"ETag": '"a"', "Content-Encoding": "br"}))[b"etag"] == b'"a"'
    assert b"content-encoding" not in await headers_of(206, {"Content-Range": "bytes 0-999/5000"})
    assert b"content-length" not in await headers_of(method="HEAD")
    assert (await headers_of(method="HEAD", accepted=[]))[b"content-length"] == b"1000"


@pytest.mark.parametrize("accepted", [[], [(b"accept-encoding", b"br, gzip;q=0.5")], [(b"accept-encoding", b"br")]])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Response("short"),
        lambda: Response("x" * 1000, media_type="text/plain"),
        lambda: Response("x" * 1000, media_type="image/png"),
        lambda: Response(status_code=204),
        lambda: Streaming(b"a" * 10, b"b" * 1000),
        lambda: Streaming(),
    ],
)
async def test_compressing_answers_as_starlette_does(make: Any, accepted: Headers) -> None:
    """Short, long, already compressed, empty, in parts; of clients that take gzip and that do not."""
    ours, theirs = compressing(make(), 100), GZipMiddleware(make(), minimum_size=100)
    assert plain(await answer(ours, accepted)) == plain(await answer(theirs, accepted))


class Texts(CliffracerService):
    @get("/text/{size}")
    async def text(self, size: int) -> str:
        return "x" * size

    @get("/reply/{size}")
    async def reply(self, size: int) -> Reply:
        return Reply("x" * size, headers={"Vary": "Accept-Language"})


@pytest.mark.parametrize("origin", ["", ORIGIN, "https://evil.example.com"])
@pytest.mark.parametrize("http", [{"cors": {"origins": [ORIGIN]}, "compression": True}, {"compression": True}, {}])
@pytest.mark.parametrize("path", ["/text", "/reply"])
async def test_endpoint_answers_alike_when_it_takes_the_short_way(
    serve: Any, http: dict[str, Any], path: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around both middlewares or through them: the same headers, below and above the size that is compressed."""
    headers = {"accept-encoding": "gzip"} | ({"origin": origin} if origin else {})

    async def heard() -> list[Any]:
        client = await serve(Texts, http=http)
        found = [await client.get(f"{path}/{size}", headers=headers) for size in (10, 5000)]
        return [
            (
                set(", ".join(each.headers.get_list("vary")).split(", ")) - {""},
                each.headers.get_list("access-control-allow-origin"),
                each.headers.get("content-encoding"),
                each.text,
            )
            for each in found
        ]

    short = await heard()
    monkeypatch.setattr(answers, "Shortcut", type("Nothing", (), {}))
    assert await heard() == short
    varying = {"Origin"} if "cors" in http else set()
    own = {"Accept-Language"} if path == "/reply" else set()
    assert short[0][0] == varying | own
    assert short[0][1] == ([ORIGIN] if origin == ORIGIN and "cors" in http else [])
    assert short[0][2] is None
    assert short[1][2] == ("gzip" if http else None)
