"""What is refused: malformed requests, too much of anything, header injection."""

from __future__ import annotations

import logging

import pytest

from cliffracer_core.testing import eventually
from cliffracer_http.limits import BodyLimits

from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["RefusalContract"]

MALFORMED = {
    "nonsense": b"nonsense\r\n\r\n",
    "another protocol": b"GET / HTTQ/1.1\r\nhost: test\r\n\r\n",
    "a control character in the path": b"GET /\x01 HTTP/1.1\r\nhost: test\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nhost: test\r\nbad header: 1\r\n\r\n",
    "a space after a name": b"GET / HTTP/1.1\r\nhost: test\r\nx-a : 1\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nhost: test\r\n: 1\r\n\r\n",
    "a carriage return": b"GET / HTTP/1.1\r\nhost: test\r\nx-a: b\rc\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nhost: test\r\nx-a: \x00\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n",
    "all bytes": bytes(range(256)) * 4,
}
_SIZE = b"POST /size HTTP/1.1\r\nhost: test\r\n"
_CHUNKED = _SIZE + b"transfer-encoding: chunked\r\n\r\n"
BROKEN_BODIES = {
    "a negative length": _SIZE + b"content-length: -1\r\n\r\n",
    "a length with a sign": _SIZE + b"content-length: +5\r\n\r\nhello",
    "a length in hex": _SIZE + b"content-length: 0x5\r\n\r\nhello",
    "a length with an underscore": _SIZE + b"content-length: 5_0\r\n\r\nhello",
    "a length past 64 bits": _SIZE + b"content-length: 99999999999999999999999999\r\n\r\nhello",
    "two lengths": _SIZE + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "an unknown coding": _SIZE + b"transfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks that are not the last coding": _SIZE + b"transfer-encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a vertical tab before the coding": _SIZE + b"transfer-encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that is none": _CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a second chunk size that is none": _CHUNKED + b"5\r\nhello\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": _CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": _CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "a line feed in an extension": _CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
}  # fmt: skip


def refused(answer: bytes) -> bool:
    """Tell whether all that came is one response of 4xx, or 501, or nothing."""
    return not answer or (answer.count(b"HTTP/1.1 ") == 1 and answer[:12] in REFUSALS)


REFUSALS = (*(b"HTTP/1.1 %d" % status for status in range(400, 500)), b"HTTP/1.1 501")


class RefusalContract(ServerSuite):
    """What does not work, and does no harm."""

    @pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
    async def test_a_malformed_request_is_refused(self, request_bytes: bytes) -> None:
        """What is no HTTP gets a 4xx or a closed connection, reaches nobody, and others are served meanwhile."""
        _, url = await self.serve()
        async with Raw(url) as raw, Raw(url) as other:
            await raw.send(request_bytes)
            assert refused(await raw.ended())
            assert not self.probe.began
            await other.send(GET % b"/other")
            assert (await other.response()).body == b"/other"

    @pytest.mark.parametrize("request_bytes", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
    async def test_a_body_is_refused_when_its_framing_is_broken(self, request_bytes: bytes) -> None:
        """Lengths and chunks that are none get a 4xx, or 501; the connection ends, so that no rest is a request."""
        _, url = await self.serve()
        async with Raw(url) as raw, Raw(url) as other:
            await raw.send(request_bytes, GET % b"/smuggled")
            assert refused(await raw.ended())
            assert self.probe.began["/smuggled"] == 0
            await other.send(GET % b"/other")
            assert (await other.response()).body == b"/other"

    async def test_a_body_is_not_whole_when_its_connection_ends_first(self) -> None:
        """A length longer than what comes, or chunks without an end: the application learns that the client is gone."""
        _, url = await self.serve()
        for request in (_SIZE + b"content-length: 10\r\n\r\nhello", _CHUNKED + b"5\r\nhello\r\n"):
            self.probe.began.clear()
            self.probe.ended.clear()
            self.probe.sizes.clear()
            async with Raw(url) as raw:
                await raw.send(request)
                await eventually(lambda: self.probe.began["/size"] == 1)
                raw.writer.write_eof()
                assert b"HTTP/1.1 200" not in await raw.ended()
            await eventually(lambda: self.probe.ended["/size"] == 1)
            assert self.probe.sizes == []

    async def test_what_follows_a_body_is_the_next_request(self) -> None:
        """A length shorter than what comes: the rest is refused as the broken request that it is."""
        _, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(_SIZE + b"content-length: 3\r\n\r\nhello\r\n\r\n")
            answer = await raw.ended()
            assert b" 200 " not in answer or self.probe.sizes == [3]
            assert refused(answer[answer.rfind(b"HTTP/1.1 ") :])
        assert self.probe.began.total() <= 1

    @pytest.mark.parametrize(
        "lines",
        [b"content-length: 6\r\ntransfer-encoding: chunked", b"transfer-encoding: chunked\r\ncontent-length: 6"],
        ids=["length first", "chunks first"],
    )
    async def test_a_length_beside_chunks_smuggles_nothing(self, lines: bytes) -> None:
        """A request with both a length and chunks hides no second one: it is refused, and the connection ends."""
        _, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(_SIZE + lines + b"\r\n\r\n0\r\n\r\n" + GET % b"/smuggled")
            answer = await raw.ended()
        assert self.probe.began["/smuggled"] == 0
        if self.make_server().capabilities.framing_refused:
            assert answer.startswith(b"HTTP/1.1 400")
            assert not self.probe.began
        else:
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\n0")

    async def test_a_long_head_is_refused(self) -> None:
        """A head past the limit is refused, whole or in pieces, and never reaches the application."""
        _, url = await self.serve(max_header_bytes=16 * 1024)
        allowed = (b"431", b"400") if self.make_server().capabilities.header_limit else (b"431", b"400", b"")
        for pieces in (1, 40):
            async with Raw(url) as raw:
                line = b"x-long: " + b"a" * (64 * 1024 // pieces) + b"\r\n"
                try:
                    await raw.send(b"GET /long HTTP/1.1\r\nhost: test\r\n", *[line] * pieces, b"\r\n")
                except ConnectionError:
                    continue
                answer = await raw.ended()
                assert (answer.split()[1] if answer else b"") in (*allowed, b"")
        assert self.probe.began["/long"] == 0

    async def test_a_long_head_is_refused_when_it_comes_at_once(self) -> None:
        """Also a head that one read takes whole, or two, gets 431, and never reaches the application."""
        self.needs("header_limit")
        for limit, size in ((16 * 1024, 20_000), (64 * 1024, 80_000)):
            _, url = await self.serve(max_header_bytes=limit)
            async with Raw(url) as raw:
                await raw.send(b"GET /long HTTP/1.1\r\nhost: test\r\nx-long: " + b"a" * size + b"\r\n\r\n")
                assert (await raw.ended()).startswith(b"HTTP/1.1 431")
        assert self.probe.began["/long"] == 0

    async def test_an_endless_head_is_refused(self) -> None:
        """A head that never ends is cut off at the limit."""
        _, url = await self.serve(max_header_bytes=16 * 1024)
        async with Raw(url) as raw:
            await raw.send(b"GET / HTTP/1.1\r\nhost: test\r\nx-long: ")
            with pytest.raises(ConnectionError):
                await raw.send(*[b"a" * 65536] * 4096)

    async def test_many_headers_are_refused(self) -> None:
        """More headers than allowed are 431."""
        url = await self.serve_limited(max_headers=20)
        async with Raw(url) as raw:
            lines = b"".join(b"x-%d: 1\r\n" % number for number in range(30))
            await raw.send(b"GET /many HTTP/1.1\r\nhost: test\r\n" + lines + b"\r\n")
            assert (await raw.response()).status == 431
        assert self.probe.began["/many"] == 0

    async def test_a_body_is_refused_when_its_length_is_too_large(self) -> None:
        """A length past the limit is 413 before anything of the body is sent."""
        url = await self.serve_limited(body=BodyLimits(1000))
        async with Raw(url) as raw:
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 1001\r\n\r\n")
            response = await raw.response()
        assert response.status == 413
        assert response.headers["content-type"] == "application/problem+json"

    async def test_a_body_is_refused_when_its_chunks_are_too_large(self) -> None:
        """Chunks past the limit are 413, also while the client is still sending."""
        url = await self.serve_limited(body=BodyLimits(1000))
        async with Raw(url) as raw:
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
            await raw.send(b"3e8\r\n" + bytes(1000) + b"\r\n", b"1\r\n.\r\n")
            assert (await raw.response()).status == 413

    async def test_a_body_at_the_limit_is_taken(self) -> None:
        """The limit itself is allowed, by length and by chunks."""
        url = await self.serve_limited(body=BodyLimits(1000))
        async with Raw(url) as raw:
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n" + bytes(1000))
            assert (await raw.response()).body == b"1000"
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
            await raw.send(b"3e8\r\n" + bytes(1000) + b"\r\n0\r\n\r\n")
            assert (await raw.response()).body == b"1000"

    @pytest.mark.parametrize("path", [b"/size", b"/unread"])
    async def test_an_endless_upload_is_cut_off(self, path: bytes) -> None:
        """A client that goes on sending after its 413, or after any response, is cut off before it has sent 128 MiB."""
        url = await self.serve_limited(body=BodyLimits(1000))
        async with Raw(url) as raw:
            await raw.send(b"POST %s HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000000\r\n\r\n" % path)
            with pytest.raises(ConnectionError):
                await raw.send(*[bytes(65536)] * 2048)

    async def test_an_application_cannot_inject_headers(self, caplog: pytest.LogCaptureFixture) -> None:
        """A response header with a line break never reaches the client as two headers."""
        _, url = await self.serve()
        with caplog.at_level(logging.CRITICAL):
            async with Raw(url) as raw:
                await raw.send(GET % b"/inject")
                answer = await self.first_bytes(raw)
        assert not answer or answer.startswith(b"HTTP/1.1 500")
        assert b"stolen" not in answer

    async def test_an_application_that_fails_is_a_500(self) -> None:
        """An exception before the response is 500, and the server goes on."""
        _, url = await self.serve()
        for _ in range(2):
            async with Raw(url) as raw:
                await raw.send(GET % b"/fail")
                assert (await raw.response()).status == 500

    @staticmethod
    async def first_bytes(raw: Raw) -> bytes:
        """Return what comes first, empty where the connection ends."""
        return await raw.reader.read(65536)
