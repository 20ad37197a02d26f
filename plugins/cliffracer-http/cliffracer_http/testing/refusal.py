"""What is refused: malformed requests, too much of anything, header injection."""

from __future__ import annotations

import logging

import pytest

from cliffracer_core.testing import eventually

from ..limits import BodyLimits
from .raw import Raw
from .suite import GET, ServerSuite

__all__ = ["RefusalContract"]

MALFORMED = [
    b"nonsense\r\n\r\n",
    b"GET / HTTQ/1.1\r\nhost: test\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nhost: test\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: test\r\nbad header: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: test\r\nx-a: b\rc\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: test\r\nx-a: \x00\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    bytes(range(256)) * 4,
]


class RefusalContract(ServerSuite):
    """What does not work, and does no harm."""

    @pytest.mark.parametrize("request_bytes", MALFORMED, ids=range(len(MALFORMED)))
    async def test_a_malformed_request_is_refused(self, request_bytes: bytes) -> None:
        """What is no HTTP gets a 4xx or a closed connection, and others are served meanwhile."""
        _, url = await self.serve()
        async with Raw(url) as raw, Raw(url) as other:
            await raw.send(request_bytes)
            answer = await raw.ended()
            assert not answer or answer.split()[1][:1] == b"4" or b"zz" in request_bytes
            await other.send(GET % b"/other")
            assert (await other.response()).body == b"/other"

    async def test_a_length_beside_chunks_smuggles_nothing(self) -> None:
        """A request with both a length and chunks hides no second request from one of two readers."""
        _, url = await self.serve()
        async with Raw(url) as raw:
            await raw.send(
                b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n",
                b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n",
            )
            answer = await raw.head()
            assert answer[0] in (200, 400)
        assert answer[0] == 400 or "/size" in self.probe.began

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

    async def test_an_endless_head_is_refused(self) -> None:
        """A head that never ends is cut off at the limit."""
        _, url = await self.serve(max_header_bytes=16 * 1024)
        sent = 0
        async with Raw(url) as raw:
            await raw.send(b"GET / HTTP/1.1\r\nhost: test\r\nx-long: ")
            with pytest.raises(ConnectionError):
                for _ in range(4096):
                    await raw.send(b"a" * 65536)
                    sent += 65536
            assert sent < 64 * 1024 * 1024

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

    async def test_an_endless_upload_is_cut_off(self) -> None:
        """A client that goes on sending after its 413 is cut off, and what it sends is not kept."""
        url = await self.serve_limited(body=BodyLimits(1000))
        async with Raw(url) as raw:
            await raw.send(b"POST /size HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000000\r\n\r\n")

            async def flood() -> bool:
                for _ in range(16):
                    await raw.send(bytes(65536))
                return False

            async def refused() -> bool:
                try:
                    return await flood()
                except ConnectionError:
                    return True

            await eventually(refused)

    async def test_an_application_cannot_inject_headers(self, caplog: pytest.LogCaptureFixture) -> None:
        """A response header with a line break never reaches the client as two headers."""
        _, url = await self.serve()
        with caplog.at_level(logging.CRITICAL):
            async with Raw(url) as raw:
                await raw.send(GET % b"/inject")
                answer = await self.first_bytes(raw)
        assert b"\r\nset-cookie" not in answer

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
