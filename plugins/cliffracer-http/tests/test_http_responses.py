"""Results on their way out: values, replies, responses, files, streams, events, encodings."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from cliffracer_http import (
    Event,
    FileResponse,
    Header,
    PlainTextResponse,
    RedirectResponse,
    Reply,
    Response,
    StreamingResponse,
    etag_of,
    get,
    post,
)
from cliffracer_http.negotiation import choose, quality
from cliffracer_http.problems import PROBLEM_TYPE
from cliffracer_http.responses import encode_event
from cliffracer_http.streaming import BREATH
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core import CliffracerService, EncodingError, InvalidHeader, NotFoundError, rpc
from cliffracer_core.messages import JSON, MSGPACK

SHARED = PlainTextResponse("shared")


class Results(CliffracerService):
    folder = Path()
    ended: list[str] = []

    @get("/reply", status_code=201)
    async def reply(self) -> Reply:
        return Reply({"a": 1}, headers={"Location": "/x"})

    @get("/status")
    async def status(self) -> Reply:
        return Reply("gone", 410)

    @get("/tagged")
    async def tagged(self) -> Reply:
        value = {"version": 3}
        return Reply(value, etag=etag_of(value))

    @get("/shared")
    async def shared(self) -> Response:
        return SHARED

    @get("/redirect")
    async def redirect(self) -> Response:
        return RedirectResponse("/shared")

    @get("/text", media_type="text/csv")
    async def text(self) -> str:
        return "a,b"

    @get("/image", media_type="image/png")
    async def image(self) -> bytes:
        return b"\x89PNG"

    @get("/nothing")
    async def nothing(self) -> None:
        return None

    @get("/odd")
    async def odd(self) -> object:
        return object()

    @get("/nan")
    async def nan(self) -> float:
        return float("nan")

    @get("/file")
    async def file(self) -> Response:
        return FileResponse(self.folder / "data.bin")

    @get("/missing-file")
    async def missing_file(self) -> Response:
        return FileResponse(self.folder / "nothing.bin")

    @get("/broken-stream")
    async def broken_stream(self) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"part"
            raise RuntimeError("broken")

        return StreamingResponse(parts())

    @rpc
    @get("/count")
    async def count(self, upto: int = 3) -> AsyncIterator[dict[str, int]]:
        try:
            for number in range(upto):
                yield {"n": number}
        finally:
            self.ended.append("count")

    @get("/ticks")
    async def ticks(self) -> AsyncIterator[str]:
        """Never wait, and say how often somebody else ran meanwhile."""
        loop, ticks, going = asyncio.get_running_loop(), 0, True

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if going:
                loop.call_soon(tick)

        tick()
        for _ in range(2000):
            yield ""
        going = False
        yield str(ticks)

    @get("/bytes")
    async def bytes(self) -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    @get("/words")
    async def words(self) -> AsyncIterator[str]:
        yield "ü"
        yield "b"

    @get("/empty")
    async def empty(self, upto: int = 0) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    @get("/fails-first")
    async def fails_first(self) -> AsyncIterator[int]:
        if not self.ended:
            raise NotFoundError("no such stream")
        yield 1

    @get("/fails-later")
    async def fails_later(self) -> AsyncIterator[int]:
        yield 1
        raise NotFoundError("lost")

    @get("/slow-start", timeout=0.2)
    async def slow_start(self) -> AsyncIterator[int]:
        await asyncio.sleep(60)
        yield 1

    @get("/slow-later", timeout=0.3)
    async def slow_later(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.6)
        yield 2

    @get("/events")
    async def events(self, last_event_id: Annotated[int, Header()] = 0) -> AsyncIterator[Event]:
        for number in range(last_event_id + 1, 4):
            yield Event(data={"n": number}, id=str(number), event="tick", retry_ms=100)

    @get("/failing-events", media_type="text/event-stream")
    async def failing_events(self) -> AsyncIterator[str]:
        yield "first"
        raise NotFoundError("lost")

    @get("/split")
    async def split(self) -> Response:
        return Response(headers={"X-Own": "a\r\nSet-Cookie: stolen=1"})

    @post("/once")
    async def once(self) -> dict[str, int]:
        self.ended.append("once")
        return {}

    @post("/page")
    async def page(self) -> Response:
        return PlainTextResponse("page")

    @post("/empty-reply", status_code=204)
    async def empty_reply(self) -> dict[str, int]:
        return {"ignored": 1}


@pytest.fixture
async def client(serve: Any, tmp_path: Path) -> httpx.AsyncClient:
    Results.folder = tmp_path
    Results.ended.clear()
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 40)
    made: httpx.AsyncClient = await serve(Results)
    return made


async def test_reply_has_its_own_status_and_headers_when_it_is_returned(client: httpx.AsyncClient) -> None:
    """`Reply` changes the status and adds headers; the value is encoded like any other."""
    answer = await client.get("/reply")
    assert (answer.status_code, answer.json(), answer.headers["location"]) == (201, {"a": 1}, "/x")
    assert (await client.get("/status")).status_code == 410
    empty = await client.post("/empty-reply")
    assert (empty.status_code, empty.content) == (204, b"")


def test_reply_is_refused_when_a_header_would_end_its_line() -> None:
    """A value that carries CR or LF never reaches the wire."""
    for headers in ({"x": "a\r\nb: c"}, {"x\r\ny": "a"}, {"x": "a\0"}):
        with pytest.raises(InvalidHeader):
            Reply(1, headers=headers)


async def test_others_run_when_a_stream_never_waits(client: httpx.AsyncClient) -> None:
    """A generator that yields on and on lets others run, and so is told when its client has gone."""
    assert int((await client.get("/ticks")).text) >= 2000 // BREATH


async def test_body_is_left_out_when_the_client_has_the_version(client: httpx.AsyncClient) -> None:
    """`If-None-Match` with the tag, weak or among others or `*`, gets 304 with the tag and no body."""
    first = await client.get("/tagged")
    tag = first.headers["etag"]
    assert (first.status_code, tag[0], tag[-1]) == (200, '"', '"')
    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get("/tagged", headers={"if-none-match": value})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await client.get("/tagged", headers={"if-none-match": '"other"'})).status_code == 200
    assert etag_of({"a": 1}) != etag_of({"a": 2})


async def test_response_is_sent_as_it_is_when_a_handler_returns_one(client: httpx.AsyncClient) -> None:
    """Starlette's responses, also one that is returned again and again, each with its own correlation id."""
    answers = [await client.get("/shared") for _ in range(3)]
    assert {each.text for each in answers} == {"shared"}
    ids = [each.headers.get_list("x-correlation-id") for each in answers]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == 3
    redirected = await client.get("/redirect")
    assert (redirected.status_code, redirected.headers["location"]) == (307, "/shared")


async def test_response_is_refused_when_a_header_would_end_its_line(client: httpx.AsyncClient) -> None:
    """A line break in a header of a handler's own response is a 500 on every server, and no second header."""
    answer = await client.get("/split")
    assert (answer.status_code, answer.json()["code"], "set-cookie" in answer.headers) == (500, "encoding_error", False)


async def test_handler_does_not_run_when_the_client_takes_nothing_it_sends(client: httpx.AsyncClient) -> None:
    """406 before a POST has changed something; what is a response of its own may be of any type."""
    Results.ended.clear()
    for accept in ("text/html", "application/json;q=0"):
        answer = await client.post("/once", headers={"accept": accept})
        assert (answer.status_code, answer.json()["code"], Results.ended) == (406, "not_acceptable", [])
    assert (await client.post("/once", headers={"accept": "application/msgpack"})).content == b"\x80"
    assert Results.ended == ["once"]
    assert (await client.post("/page", headers={"accept": "text/plain"})).text == "page"


async def test_media_type_is_the_routes_when_it_is_set(client: httpx.AsyncClient) -> None:
    """`media_type=` sends text and bytes as they are."""
    answer = await client.get("/text")
    assert (answer.headers["content-type"], answer.text) == ("text/csv", "a,b")
    image = await client.get("/image", headers={"accept": "text/html"})
    assert (image.headers["content-type"], image.content) == ("image/png", b"\x89PNG")
    assert (await client.get("/nothing")).text == "null"


@pytest.mark.parametrize("path", ["/odd", "/nan"])
async def test_answer_is_a_problem_when_a_result_has_no_encoding(client: httpx.AsyncClient, path: str) -> None:
    """What cannot be sent is a 500 that says so."""
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (500, "encoding_error")


async def test_part_of_a_file_is_sent_when_a_range_is_asked_for(client: httpx.AsyncClient) -> None:
    """RFC 9110 ranges: one, several, from the end, none that fits."""
    whole = await client.get("/file")
    content = whole.content
    assert (whole.status_code, len(content), whole.headers["accept-ranges"]) == (200, 10240, "bytes")
    part = await client.get("/file", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, content[10:20], "bytes 10-19/10240")
    assert (await client.get("/file", headers={"range": "bytes=-5"})).content == content[-5:]
    two = await client.get("/file", headers={"range": "bytes=0-1,100-101"})
    assert two.headers["content-type"].startswith("multipart/byteranges")
    for none in ("bytes=20000-", "bytes=10240-10241,20000-", "bytes=-0"):
        beyond = await client.get("/file", headers={"range": none})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10240")
        assert (beyond.headers["content-type"], beyond.json()["code"]) == (PROBLEM_TYPE, "range_not_satisfiable")
    some = await client.get("/file", headers={"range": "bytes=2-1000000, 20000-"})
    assert (some.status_code, some.content) == (206, content[2:])
    for ignored in ("lines=0-1", "bytes=5-2", "bytes=a-b", "bytes", "bytes=", "bytes=1-2,x", "bytes=" + "0-1," * 101):
        assert (await client.get("/file", headers={"range": ignored})).content == content
    head = await client.head("/file")
    assert (head.headers["content-length"], head.content) == ("10240", b"")


async def test_file_is_sent_whole_or_not_when_the_client_names_a_version(client: httpx.AsyncClient) -> None:
    """`If-Range` with another version ignores the range; `If-None-Match` with this one is a 304."""
    tag = (await client.get("/file")).headers["etag"]
    for version, status in ((tag, 206), ('"other"', 200), (f"W/{tag}", 200)):
        assert (await client.get("/file", headers={"range": "bytes=0-1", "if-range": version})).status_code == status
    other = await client.get("/file", headers={"range": "bytes=20000-", "if-range": '"other"'})
    assert (other.status_code, len(other.content)) == (200, 10240)
    for method in ("GET", "HEAD"):
        known = await client.request(method, "/file", headers={"if-none-match": f'"x", {tag}', "range": "bytes=0-1"})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert (await client.get("/file", headers={"if-none-match": '"x"'})).status_code == 200


async def test_answer_is_a_problem_when_a_file_is_missing(client: httpx.AsyncClient) -> None:
    """The path of the file stays inside."""
    answer = await client.get("/missing-file")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "nothing.bin" not in answer.text


# --- encodings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON), ("*/*", JSON), ("application/*", JSON), ("application/json", JSON),
        ("application/msgpack", MSGPACK),
        ("application/x-msgpack, */*;q=0.1", MSGPACK), ("application/msgpack;q=0.5, application/json", JSON),
        ("application/json;q=0.5, application/vnd.msgpack;q=0.9", MSGPACK), ("text/html,*/*;q=0.8", JSON),
        ("text/html", None), ("application/json;q=0", None), ("application/json;q=0, */*", MSGPACK),
        ("text/html, application/json;q=nonsense", None), (",,;;", None),
    ],
)  # fmt: skip
def test_codec_is_what_the_client_likes_best_when_it_says(accept: str, expected: object) -> None:
    """Quality values and the most specific range decide; None where it takes neither."""
    assert choose(accept.encode()) is expected


@given(st.binary(max_size=60))
def test_accept_never_fails_when_it_is_nonsense(accept: bytes) -> None:
    """Whatever a client sends there, something is chosen or nothing is."""
    assert choose(accept) in (JSON, MSGPACK, None)
    assert 0 <= quality(accept, "text/html") <= 1


async def test_result_is_messagepack_when_the_client_prefers_it(client: httpx.AsyncClient) -> None:
    """By `Accept`, for values and replies; 406 where it takes neither."""
    answer = await client.get("/reply", headers={"accept": "application/msgpack"})
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.content) == {"a": 1}
    refused = await client.get("/reply", headers={"accept": "text/html"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


# --- streams ----------------------------------------------------------------------------------------


async def test_items_are_lines_when_a_generator_yields_values(client: httpx.AsyncClient) -> None:
    """One JSON value a line, chunked; bytes and text as they are; nothing at all is an empty body."""
    answer = await client.get("/count")
    assert (answer.headers["content-type"], answer.text) == ("application/x-ndjson", '{"n":0}\n{"n":1}\n{"n":2}\n')
    assert "content-length" not in answer.headers
    assert Results.ended == ["count"]
    raw = await client.get("/bytes")
    assert (raw.headers["content-type"], raw.content) == ("application/octet-stream", b"ab")
    words = await client.get("/words")
    assert (words.headers["content-type"], words.text) == ("text/plain; charset=utf-8", "üb")
    empty = await client.get("/empty")
    assert (empty.status_code, empty.content) == (200, b"")
    assert (await client.head("/count")).content == b""


async def test_items_are_events_when_the_client_asks_for_them(client: httpx.AsyncClient) -> None:
    """A browser's EventSource gets server-sent events from the same generator."""
    answer = await client.get("/count", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text == 'data: {"n":0}\n\ndata: {"n":1}\n\ndata: {"n":2}\n\n'


async def test_events_resume_when_the_last_id_is_sent(client: httpx.AsyncClient) -> None:
    """`Event` has id, name and retry; the handler reads `Last-Event-ID` and goes on after it."""
    answer = await client.get("/events", headers={"last-event-id": "2"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text == 'event: tick\nid: 3\nretry: 100\ndata: {"n":3}\n\n'
    assert (await client.get("/events")).text.count("data:") == 3


async def test_error_is_a_problem_when_a_generator_fails_before_its_first_item(client: httpx.AsyncClient) -> None:
    """Nothing was sent yet, so the status can still tell."""
    answer = await client.get("/fails-first")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such stream")


@pytest.mark.parametrize("path", ["/fails-later", "/broken-stream"])
async def test_connection_is_cut_when_a_stream_fails_after_it_began(client: httpx.AsyncClient, path: str) -> None:
    """A part is never taken for the whole."""
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(path)
    assert (await client.get("/count")).status_code == 200


async def test_error_is_an_event_when_an_event_stream_fails(client: httpx.AsyncClient) -> None:
    """An event named `error` carries the problem, then the stream ends."""
    text = (await client.get("/failing-events")).text
    first, second, rest = text.split("\n\n")
    assert (first, rest) == ("data: first", "")
    name, data = second.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "not_found"


async def test_deadline_is_that_of_the_first_item_when_a_handler_streams(client: httpx.AsyncClient) -> None:
    """A stream that does not begin is a 504; one that began may take as long as it likes."""
    answer = await client.get("/slow-start")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert (await client.get("/slow-later")).text == "1\n2\n"


async def test_comments_are_sent_when_an_event_stream_is_silent(monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    """Nobody between takes a silent stream for dead; an item is never split by a comment."""
    monkeypatch.setattr("cliffracer_http.streaming.HEARTBEAT_S", 0.05)
    go = asyncio.Event()

    class Silent(CliffracerService):
        @get("/silent", media_type="text/event-stream")
        async def silent(self) -> AsyncIterator[str]:
            yield "first"
            await go.wait()
            yield "last"

    client: httpx.AsyncClient = await serve(Silent)
    text = ""
    async with client.stream("GET", "/silent") as answer:
        async for part in answer.aiter_text():
            text += part
            if text.count(":\n\n") == 3:
                go.set()
    assert text.replace(":\n\n", "") == "data: first\n\ndata: last\n\n"


async def test_items_arrive_one_by_one_when_they_are_made(serve: Any) -> None:
    """The first item is there while the handler waits before the second."""
    go = asyncio.Event()

    class Slow(CliffracerService):
        @get("/slow")
        async def slow(self) -> AsyncIterator[int]:
            yield 1
            await go.wait()
            yield 2

    client: httpx.AsyncClient = await serve(Slow)
    async with client.stream("GET", "/slow") as answer:
        parts = answer.aiter_text()
        assert await anext(parts) == "1\n"
        go.set()
        assert await anext(parts) == "2\n"
        with contextlib.suppress(StopAsyncIteration):
            await anext(parts)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(data="a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event(data=""), "data: \n\n"),
        (Event(comment="x\ny"), ": x\n: y\n\n"),
        (Event(), "data: null\n\n"),
        ({"a": 1}, 'data: {"a":1}\n\n'),
        ("text", "data: text\n\n"),
    ],
)
def test_event_is_encoded_when_it_has_any_form(event: object, text: str) -> None:
    """Line breaks of all kinds make several data lines, so that no data can pose as a field."""
    assert encode_event(event).decode() == text


@pytest.mark.parametrize("event", [Event(id="a\nb"), Event(event="a\rb"), Event(id="\0"), Event(data=object())])
def test_event_is_refused_when_it_would_break_the_stream(event: Event) -> None:
    """A name or id with a line break would be another field."""
    with pytest.raises(EncodingError):
        encode_event(event)
