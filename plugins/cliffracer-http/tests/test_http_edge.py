"""The edge: what enters from outside, what goes on inside, ids, time, and who is cancelled."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from cliffracer_http import get, post
from cliffracer_http.edge import admit

from cliffracer_core import (
    AuthenticationError,
    CliffracerService,
    Identity,
    MessageContext,
    ServiceConfig,
    get_correlation_id,
    hookimpl,
    rpc,
)
from cliffracer_core.testing import unique

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Backend(CliffracerService):
    name = "backend"

    @rpc
    async def seen(self, context: MessageContext) -> dict[str, object]:
        return {"headers": dict(context.headers), "id": context.correlation_id, "left": context.remaining_s()}


class Front(CliffracerService):
    started = asyncio.Event()
    ended: list[str] = []

    @get("/seen")
    async def seen(self, context: MessageContext) -> dict[str, object]:
        return {"headers": dict(context.headers), "id": context.correlation_id, "here": get_correlation_id()}

    @get("/beyond/{name}")
    async def beyond(self, name: str) -> Any:
        return await self.rpc_call(name, "seen")

    @get("/sleep/{seconds}", timeout=1.0)
    async def sleep(self, seconds: float, context: MessageContext) -> float | None:
        left = context.remaining_s()
        await asyncio.sleep(seconds)
        return left

    @post("/busy")
    async def busy(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def client(serve: Any) -> httpx.AsyncClient:
    made: httpx.AsyncClient = await serve(Front)
    return made


@pytest.mark.parametrize("header", ["X-Correlation-ID", "x-request-id"])
async def test_id_is_the_clients_when_it_sends_one(client: httpx.AsyncClient, header: str) -> None:
    """It is in the context, in calls, and comes back, under one name."""
    answer = await client.get("/seen", headers={header: "order-7_x.Y"})
    assert (answer.json()["id"], answer.json()["here"]) == ("order-7_x.Y", "order-7_x.Y")
    assert answer.headers.get_list("x-correlation-id") == ["order-7_x.Y"]


@pytest.mark.parametrize("value", ["", "a b", "a/b", "x" * 129, "ü", "a;b", "${jndi:x}"])
async def test_id_is_made_when_the_clients_is_malformed(client: httpx.AsyncClient, value: str) -> None:
    """What could not stand safely in a log line is replaced."""
    for path in ("/seen", "/nowhere", "/health"):
        answer = await client.get(path, headers=[(b"X-Correlation-ID", value.encode("latin-1"))])
        (id,) = answer.headers.get_list("x-correlation-id")
        assert re.fullmatch("[0-9a-f]{32}", id)


async def test_correlation_id_counts_when_both_are_sent(client: httpx.AsyncClient) -> None:
    """`X-Correlation-ID` before `X-Request-ID`; of two under one name the first."""
    headers = [("x-request-id", "r"), ("x-correlation-id", "c1"), ("x-correlation-id", "c2")]
    assert (await client.get("/seen", headers=headers)).json()["id"] == "c1"


async def test_internal_headers_are_dropped_when_they_come_from_outside(client: httpx.AsyncClient) -> None:
    """Of all headers a handler's context has those of the design, and none that the inside speaks."""
    sent = {
        "traceparent": TRACE, "idempotency-key": "k1", "authorization": "Bearer t", "x-api-key": "k", "cookie": "a=b",
        "nats-service-error": "x", "nats-msg-id": "1", "reply-all-to": "_INBOX.x", "stream-to": "_INBOX.x",
        "x-original-message-id": "1", "content-type": "text/plain", "timeout-ms": "5000", "x-forwarded-for": "1.2.3.4",
    }  # fmt: skip
    headers = (await client.get("/seen", headers=sent)).json()["headers"]
    assert headers == {
        "traceparent": TRACE, "Idempotency-Key": "k1", "Authorization": "Bearer t", "X-API-Key": "k", "Cookie": "a=b",
    }  # fmt: skip


def test_malformed_headers_are_as_none_when_they_come_from_outside() -> None:
    """A traceparent or timeout that does not follow its grammar is not given; a key is the empty one, to be refused."""
    raw = [(b"traceparent", b"00-xyz"), (b"timeout-ms", b"-5"), (b"timeout-ms", b"soon")]
    headers, id, timeout_s, content_type, accept, _ = admit(raw)
    assert (headers, timeout_s, content_type, accept) == ({}, None, b"", b"")
    assert len(id) == 32
    for trace in (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), "ff" + TRACE[2:], TRACE + "-00"):
        assert admit([(b"traceparent", trace.encode())])[0] == {}
    for key in (b"k" * 256, b" k", b""):
        assert admit([(b"idempotency-key", key)])[0] == {"Idempotency-Key": ""}
    assert admit([(b"accept", b"a/b"), (b"accept", b"c/d")])[4] == b"a/b,c/d"


async def test_trace_and_id_go_on_when_a_handler_calls_another_service(client: httpx.AsyncClient) -> None:
    """traceparent and correlation id, and what is left of the time, reach the service that is called."""
    async with Backend(ServiceConfig(unique())) as backend:
        asked = {"traceparent": TRACE, "x-correlation-id": "c7", "authorization": "Bearer secret", "timeout-ms": "2000"}
        seen = (await client.get(f"/beyond/{backend.name}", headers=asked)).json()
    assert seen["id"] == "c7"
    assert seen["headers"]["traceparent"] == TRACE
    assert "Authorization" not in seen["headers"]
    assert 0 < seen["left"] <= 2.0


async def test_deadline_is_the_routes_when_a_client_wants_more(client: httpx.AsyncClient) -> None:
    """A client's timeout can only shorten; when it is over the answer is a 504 and the handler was cancelled."""
    assert 0.5 < (await client.get("/sleep/0")).json() <= 1.0
    assert (await client.get("/sleep/0", headers={"timeout-ms": "60000"})).json() <= 1.0
    assert (await client.get("/sleep/0", headers={"timeout-ms": "400"})).json() <= 0.4
    for headers in ({}, {"timeout-ms": "100"}):
        late = await client.get("/sleep/30", headers=headers)
        assert (late.status_code, late.json()["code"], late.json()["retryable"]) == (504, "deadline_exceeded", True)


async def test_request_waits_or_is_refused_when_the_handler_is_at_its_limit(serve: Any) -> None:
    """Past `concurrency` requests wait for a slot; past `queue_size` they are 503 with `Retry-After`."""
    go = asyncio.Event()
    running = 0

    class Narrow(CliffracerService):
        @get("/narrow")
        async def narrow(self) -> int:
            nonlocal running
            running += 1
            assert running <= 2
            await go.wait()
            running -= 1
            return 1

    client: httpx.AsyncClient = await serve(Narrow, concurrency=2, queue_size=3)
    tasks = [asyncio.create_task(client.get("/narrow")) for _ in range(8)]
    done: set[Any] = set()
    async with asyncio.timeout(10):
        while len(done) < 3:
            done, _ = await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
    refused = [task.result() for task in done]
    assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(503, "1")] * 3
    go.set()
    answers = [await task for task in tasks if task not in done]
    assert [each.status_code for each in answers] == [200] * 5


async def test_guards_see_the_credentials_when_a_request_comes(serve: Any) -> None:
    """Authenticators of other plugins are asked with the request's headers; what they refuse is a 401."""

    class Keys:
        async def authenticate(self, headers: Any) -> Identity | None:
            if headers.get("X-API-Key") == "wrong":
                raise AuthenticationError("api key is not known")
            return Identity(id="ada") if "X-API-Key" in headers else None

    class Auth:
        @hookimpl
        def cliffracer_register_authenticators(self) -> list[Keys]:
            return [Keys()]

    class Who(CliffracerService):
        @get("/who")
        async def who(self, context: MessageContext) -> str | None:
            return context.identity.id if context.identity else None

    client: httpx.AsyncClient = await serve(Who, plugins={"keys": Auth()})
    assert (await client.get("/who")).json() is None
    assert (await client.get("/who", headers={"x-api-key": "k"})).json() == "ada"
    refused = await client.get("/who", headers={"x-api-key": "wrong"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
