"""CORS and compression give what Starlette's own give, whether a request takes the short way or not."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from cliffracer_http import Reply, endpoint, get
from cliffracer_http.shortcuts import compressing, cross_origin
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from cliffracer_core import CliffracerService

ORIGIN = "https://app.example.com"
Headers = list[tuple[bytes, bytes]]


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
    headers = sorted((name, value) for name, value in messages[0]["headers"] if name != b"content-length")
    packed = (b"content-encoding", b"gzip") in headers
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
@pytest.mark.parametrize("origins", [[ORIGIN], ["*"]])
async def test_cross_origin_answers_as_starlette_does(headers: Headers, method: str, origins: list[str]) -> None:
    """With and without an origin, asked first or not; but for the id, which a preflight's answer has too."""
    asked = [*headers, (b"access-control-request-method", b"GET")] if method == "OPTIONS" else headers
    ours = cross_origin(Response("x"), allow_origins=origins)
    theirs = CORSMiddleware(Response("x"), allow_origins=origins)
    mine = plain(await answer(ours, asked, method))
    ids = [each for each in mine[1] if each[0] == b"x-correlation-id"]
    mine[1] = [each for each in mine[1] if each not in ids]
    assert mine == plain(await answer(theirs, asked, method))
    assert len(ids) == (1 if headers and method == "OPTIONS" else 0)


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


@pytest.mark.parametrize("http", [{"cors": {"origins": [ORIGIN]}, "compression": True}, {"compression": True}, {}])
@pytest.mark.parametrize("path", ["/text", "/reply"])
async def test_endpoint_answers_alike_when_it_takes_the_short_way(
    serve: Any, http: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around both middlewares or through them: the same headers, below and above the size that is compressed."""

    async def answers() -> list[Any]:
        client = await serve(Texts, http=http)
        return [
            (each.headers.get_list("vary"), each.headers.get("content-encoding"), each.text)
            for each in [await client.get(f"{path}/{size}", headers={"accept-encoding": "gzip"}) for size in (10, 5000)]
        ]

    short = await answers()
    monkeypatch.setattr(endpoint, "Shortcut", type("Nothing", (), {}))
    assert await answers() == short
    origin = ["Origin"] if "cors" in http else []
    own = ["Accept-Language"] if path == "/reply" else []
    assert set(short[0][0]) == {*origin, *own}
    assert short[0][1] is None
    assert short[1][1] == ("gzip" if http else None)
