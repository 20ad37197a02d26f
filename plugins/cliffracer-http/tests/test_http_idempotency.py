"""`Idempotency-Key`: one run, one response, whatever the client repeats."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from cliffracer_http import PlainTextResponse, Reply, get, post, put

from cliffracer_core import CliffracerService, ConfigurationError, ConflictError, Identity, hookimpl, rpc
from cliffracer_core.testing import unique


class Orders(CliffracerService):
    runs: list[str] = []
    go = asyncio.Event()
    began = asyncio.Event()
    failing = False

    @rpc
    @post("/orders", status_code=201)
    async def order(self, item: str) -> dict[str, object]:
        self.runs.append(item)
        if self.failing:
            raise ConflictError("out of stock")
        return {"item": item, "number": len(self.runs)}

    @post("/other", status_code=201)
    async def other(self, item: str) -> dict[str, object]:
        self.runs.append(item)
        return {"other": len(self.runs)}

    @put("/slow")
    async def slow(self, item: str) -> str:
        self.runs.append(item)
        self.began.set()
        await self.go.wait()
        return item

    @post("/reply")
    async def reply(self) -> Reply:
        self.runs.append("reply")
        return Reply({"n": len(self.runs)}, 202, {"Location": "/x"}, "tag")

    @post("/text")
    async def text(self) -> PlainTextResponse:
        self.runs.append("text")
        return PlainTextResponse(f"{len(self.runs)}", 203, {"X-Own": "1"})

    @get("/safe")
    async def safe(self) -> int:
        self.runs.append("safe")
        return len(self.runs)


class Names:
    """Whoever says a name is that; `name@tenant` is of a tenant."""

    async def authenticate(self, headers: Any) -> Identity | None:
        if "X-API-Key" not in headers:
            return None
        name, _, tenant = headers["X-API-Key"].partition("@")
        return Identity(id=name, claims={"tenant": tenant} if tenant else {})


class Auth:
    @hookimpl
    def cliffracer_register_authenticators(self) -> list[Names]:
        return [Names()]


@pytest.fixture
async def client(serve: Any) -> httpx.AsyncClient:
    Orders.runs, Orders.go, Orders.began, Orders.failing = [], asyncio.Event(), asyncio.Event(), False
    http = {"idempotency_store": "default"}
    made: httpx.AsyncClient = await serve(Orders, store=f"memory://{unique()}", plugins={"names": Auth()}, http=http)
    return made


KEY = {"Idempotency-Key": "k-1"}
TEA = {"item": "tea"}


async def test_handler_runs_once_when_a_key_is_repeated(client: httpx.AsyncClient) -> None:
    """The same status and body again, marked as replayed; without a key it runs each time."""
    first = await client.post("/orders", json=TEA, headers=KEY)
    again = await client.post("/orders", json=TEA, headers=KEY)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (201, {"item": "tea", "number": 1})
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert Orders.runs == ["tea"]
    assert (await client.post("/orders", json=TEA)).json()["number"] == 2


async def test_whole_response_comes_again_when_it_was_a_reply_or_response(client: httpx.AsyncClient) -> None:
    """Status, headers and tag of a `Reply`, status, headers and body of a response."""
    for path in ("/reply", "/text"):
        first, again = [await client.post(path, headers=KEY) for _ in range(2)]
        assert (first.status_code, first.content) == (again.status_code, again.content)
        for name in ("location", "etag", "x-own", "content-type"):
            assert first.headers.get(name) == again.headers.get(name)
    assert Orders.runs == ["reply", "text"]


async def test_key_is_refused_when_the_request_is_another(client: httpx.AsyncClient) -> None:
    """422 for another body under the same key; nothing runs."""
    await client.post("/orders", json=TEA, headers=KEY)
    answer = await client.post("/orders", json={"item": "milk"}, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert Orders.runs == ["tea"]


async def test_keys_are_apart_when_handler_or_caller_differ(client: httpx.AsyncClient) -> None:
    """A key belongs to one handler, one identity and its tenant: nobody reads another's response."""
    assert (await client.post("/orders", json=TEA, headers=KEY)).json()["number"] == 1
    assert (await client.post("/other", json=TEA, headers=KEY)).json() == {"other": 2}
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "ada"})).json()["number"] == 3
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "bo"})).json()["number"] == 4
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "ada"})).json()["number"] == 3
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "ada@acme"})).json()["number"] == 5
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "ada@other"})).json()["number"] == 6
    assert (await client.post("/orders", json=TEA, headers={**KEY, "x-api-key": "ada@acme"})).json()["number"] == 5


async def test_second_request_is_refused_when_the_first_still_runs(client: httpx.AsyncClient) -> None:
    """409 while it is being processed, the response afterwards; the handler ran once."""
    first = asyncio.create_task(client.put("/slow", json=TEA, headers=KEY))
    async with asyncio.timeout(10):
        await Orders.began.wait()
    busy = await client.put("/slow", json=TEA, headers=KEY)
    assert (busy.status_code, busy.json()["code"]) == (409, "conflict")
    Orders.go.set()
    assert (await first).json() == (await client.put("/slow", json=TEA, headers=KEY)).json() == "tea"
    assert Orders.runs == ["tea"]


async def test_retry_runs_when_the_first_failed(client: httpx.AsyncClient) -> None:
    """An error is not remembered: the key is free again."""
    Orders.failing = True
    assert (await client.post("/orders", json=TEA, headers=KEY)).status_code == 409
    Orders.failing = False
    assert (await client.post("/orders", json=TEA, headers=KEY)).status_code == 201
    assert Orders.runs == ["tea", "tea"]


async def test_key_means_nothing_when_the_method_is_safe_or_there_is_no_store(
    client: httpx.AsyncClient, serve: Any
) -> None:
    """GET runs each time; so does everything where the only store is the process's memory, unless it is named."""
    assert [(await client.get("/safe", headers=KEY)).json() for _ in range(2)] == [1, 2]
    other: httpx.AsyncClient = await serve(Orders)
    Orders.runs = []
    assert [(await other.post("/orders", json=TEA, headers=KEY)).json()["number"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"k\xfc"])
async def test_key_is_refused_when_it_is_malformed(client: httpx.AsyncClient, key: bytes) -> None:
    """Who counts on a key is told that it cannot be kept; nothing runs. Where no key is heeded it is none."""
    answer = await client.post("/orders", json=TEA, headers={b"Idempotency-Key": key})
    assert (answer.status_code, "printable" in answer.json()["detail"], Orders.runs) == (400, True, [])
    assert (await client.get("/safe", headers={b"Idempotency-Key": key})).status_code == 200


async def test_start_fails_when_the_store_is_not_configured(serve: Any) -> None:
    """A misspelt store is found at start."""
    with pytest.raises(ConfigurationError, match="http.idempotency_store: there is no store 'keys'; known are"):
        await serve(Orders, http={"idempotency_store": "keys"})
