"""From requests to arguments: where values come from, and every way in which they can be wrong."""

from __future__ import annotations

import datetime
import enum
import re
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from cliffracer_http import Application, Body, Cookie, Form, Header, Path, Query, Request, delete, get, post, put
from msgspec import Meta

from cliffracer_core import CliffracerService, ConfigurationError, MessageContext, ServiceConfig, rpc
from cliffracer_core.testing import unique


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(msgspec.Struct):
    street: str
    number: Annotated[int, Meta(gt=0)]


class Person(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1)]
    addresses: list[Address] = []
    age: int | None = None


class Filter(msgspec.Struct, rename="camel"):
    min_price: float = 0.0
    colours: list[Colour] = []


class Shop(CliffracerService):
    @get("/types/{when}/{number}/{colour}")
    async def types(
        self, when: datetime.date, number: int, colour: Colour, flag: bool = False, ratio: float = 1.0
    ) -> list[object]:
        return [when, number, colour, flag, ratio]

    @get("/many")
    async def many(self, tag: list[str], number: set[int] | None = None) -> list[object]:
        return [tag, sorted(number or [])]

    @get("/named")
    async def named(
        self,
        user_agent: Annotated[str, Header()],
        x_tokens: Annotated[list[int], Header()],
        session: Annotated[str | None, Cookie()] = None,
        who: Annotated[str, Query("from")] = "nobody",
    ) -> list[object]:
        return [user_agent, x_tokens, session, who]

    @get("/filter")
    async def filter(self, filter: Annotated[Filter, Query()], page: int = 1) -> list[object]:
        return [filter, page]

    @get("/anything")
    async def anything(self, query: Annotated[dict[str, str], Query()]) -> dict[str, str]:
        return query

    @get("/alias/{user-id}".replace("-", "_"))
    async def alias(self, ident: Annotated[int, Path("user_id")]) -> int:
        return ident

    @post("/person")
    async def person(self, person: Person) -> Person:
        return person

    @post("/people")
    async def people(self, people: list[Person]) -> int:
        return len(people)

    @post("/fields")
    async def fields(self, name: str, tags: list[str] = [], limit: int = 3) -> list[object]:  # noqa: B006 - each call has its own
        tags.append("added")
        return [name, tags, limit]

    @put("/both/{id}")
    async def both(self, id: int, person: Person, dry: Annotated[bool, Query()] = False) -> list[object]:
        return [id, person.name, dry]

    @post("/embed")
    async def embed(self, person: Annotated[Person, Body(embed=True)]) -> str:
        return person.name

    @post("/two")
    async def two(self, left: Person, right: Person) -> list[str]:
        return [left.name, right.name]

    @post("/scalar")
    async def scalar(self, number: Annotated[int, Body()]) -> int:
        return number

    @post("/raw")
    async def raw(self, blob: Annotated[bytes, Body()]) -> int:
        return len(blob)

    @post("/optional")
    async def optional(self, person: Person | None = None) -> str:
        return person.name if person else "nobody"

    @post("/any")
    async def any(self, value: Annotated[Any, Body()]) -> str:
        return type(value).__name__

    @delete("/fruit")
    async def fruit(self, id: int, person: Person) -> list[object]:
        return [id, person.name]

    @post("/twice")
    async def twice(self, person: Person, request: Request) -> list[object]:
        return [person.name, await request.json(), isinstance(request.app, Application)]

    @get("/asked")
    async def asked(self, request: Request, context: MessageContext, q: str = "") -> list[object]:
        return [request.url.path, context.kind, context.handler, context.subject, q]


@pytest.fixture
async def client(serve: Any) -> httpx.AsyncClient:
    made: httpx.AsyncClient = await serve(Shop)
    return made


async def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_text_becomes_the_types_when_parameters_are_annotated(client: httpx.AsyncClient) -> None:
    """Dates, numbers, booleans and enumerations from path and query; defaults where nothing is given."""
    answer = await client.get("/types/2024-02-29/-7/blue", params={"flag": "true", "ratio": "0.5"})
    assert await ok(answer) == ["2024-02-29", -7, "blue", True, 0.5]
    assert await ok(await client.get("/types/2024-02-29/7/red")) == ["2024-02-29", 7, "red", False, 1.0]


async def test_list_takes_all_values_when_a_query_repeats(client: httpx.AsyncClient) -> None:
    """A list or set takes every value, one as well as several."""
    assert await ok(await client.get("/many?tag=a&tag=b&number=2&number=1")) == [["a", "b"], [1, 2]]
    assert await ok(await client.get("/many?tag=a%20%2B+b")) == [["a + b"], []]


async def test_headers_and_cookies_are_found_when_named(client: httpx.AsyncClient) -> None:
    """Headers by the parameter's name with dashes, cookies, and a name of the client's own."""
    headers = [("user-agent", "x"), ("x-tokens", "1"), ("X-Tokens", "2"), ("cookie", "session=s1; other=2")]
    assert await ok(await client.get("/named?from=Ada", headers=headers)) == ["x", [1, 2], "s1", "Ada"]


async def test_fields_come_one_by_one_when_a_struct_is_in_the_query(client: httpx.AsyncClient) -> None:
    """`Annotated[Filter, Query()]` takes its fields by their encoded names; a dict takes everything."""
    answer = await ok(await client.get("/filter?minPrice=2.5&colours=red&colours=blue&page=2"))
    assert answer == [{"minPrice": 2.5, "colours": ["red", "blue"]}, 2]
    assert await ok(await client.get("/filter")) == [{"minPrice": 0.0, "colours": []}, 1]
    assert await ok(await client.get("/anything?a=1&b=")) == {"a": "1", "b": ""}


async def test_parameter_has_another_name_when_it_is_aliased(client: httpx.AsyncClient) -> None:
    """A path parameter may be called differently in the function."""
    assert await ok(await client.get("/alias/7")) == 7


async def test_body_is_a_struct_when_one_parameter_takes_it(client: httpx.AsyncClient) -> None:
    """One Struct, or a list of them, is the whole body; the path and a marked query go beside it."""
    ada = {"name": "Ada", "addresses": [{"street": "s", "number": 1}]}
    assert await ok(await client.post("/person", json=ada)) == {**ada, "age": None}
    assert await ok(await client.post("/people", json=[ada, ada])) == 2
    assert await ok(await client.put("/both/7?dry=1", json=ada)) == [7, "Ada", True]
    assert await ok(await client.request("DELETE", "/fruit?id=3", json=ada)) == [3, "Ada"]


async def test_body_is_an_object_of_fields_when_scalars_or_several_come_from_it(client: httpx.AsyncClient) -> None:
    """Scalars, several Structs, or an embedded one are fields by name; defaults are fresh for each call."""
    for _ in range(2):
        assert await ok(await client.post("/fields", json={"name": "x"})) == ["x", ["added"], 3]
    assert await ok(await client.post("/embed", json={"person": {"name": "Ada"}})) == "Ada"
    assert await ok(await client.post("/two", json={"left": {"name": "a"}, "right": {"name": "b"}})) == ["a", "b"]


async def test_whole_body_is_taken_when_it_is_marked(client: httpx.AsyncClient) -> None:
    """`Body()` on a scalar takes a whole JSON value, on `bytes` whatever was sent."""
    assert await ok(await client.post("/scalar", json=5)) == 5
    assert await ok(await client.post("/raw", content=b"\xff\x00", headers={"content-type": "image/png"})) == 2
    assert await ok(await client.post("/any", json=[])) == "list"


async def test_default_is_used_when_an_optional_body_is_missing(client: httpx.AsyncClient) -> None:
    """No body at all, and `null`, where the parameter has a default."""
    assert await ok(await client.post("/optional")) == "nobody"
    assert await ok(await client.post("/optional", json=None, content=b"null")) == "nobody"
    assert await ok(await client.post("/optional", json={"name": "Ada"})) == "Ada"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/JSON; charset=UTF-8", "application/merge-patch+json", None]
)
async def test_json_is_read_when_the_content_type_says_so_or_nothing(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    """JSON under its names; a body without a content type is taken for JSON."""
    headers = {} if content_type is None else {"content-type": content_type}
    assert await ok(await client.post("/person", content=b'{"name":"A"}', headers=headers))


@pytest.mark.parametrize("name", ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"])
async def test_messagepack_is_read_when_it_is_sent(client: httpx.AsyncClient, name: str) -> None:
    """The same types from MessagePack, and the same errors."""
    body = msgspec.msgpack.encode({"name": "Ada"})
    assert await ok(await client.post("/person", content=body, headers={"content-type": name}))
    bad = await client.post("/person", content=msgspec.msgpack.encode({"name": 1}), headers={"content-type": name})
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (400, "#/name")
    broken = await client.post("/person", content=b"\x81\xa4na", headers={"content-type": name})
    assert (broken.status_code, "MessagePack" in broken.json()["detail"]) == (400, True)


async def test_request_and_context_are_given_when_a_handler_asks(client: httpx.AsyncClient) -> None:
    """`Request` and `MessageContext` by annotation, beside ordinary parameters."""
    expected = ["/asked", "http", "asked", "GET /asked", "x"]
    assert await ok(await client.get("/asked?q=x")) == expected


async def test_request_has_its_body_when_a_parameter_took_it_too(client: httpx.AsyncClient) -> None:
    """A handler may ask for the decoded body and for the request, whose body is then at hand, and its application."""
    ada = {"name": "Ada"}
    assert await ok(await client.post("/twice", json=ada)) == ["Ada", ada, True]


# --- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "faults"),
    [
        (
            "/types/yesterday/x/green?flag=perhaps&ratio=much",
            [("path", "when"), ("path", "number"), ("path", "colour"), ("query", "flag"), ("query", "ratio")],
        ),
        ("/types/2024-01-01/1/red?flag=true&flag=true&ratio=1&ratio=x", [("query", "flag"), ("query", "ratio")]),
        ("/types/2024-01-01/1.5/red", [("path", "number")]),
        ("/types/2024-01-01/99999999999999999999999999999999/red?ratio=", [("query", "ratio")]),
        ("/types/2024-01-01/1/red?ratio=nan", [("query", "ratio")]),
        ("/filter?minPrice=-inf", [("query", "filter")]),
        ("/many", [("query", "tag")]),
        ("/many?tag=a&number=1&number=x", [("query", "number")]),
        ("/filter?minPrice=x&page=y", [("query", "minPrice"), ("query", "page")]),
        ("/filter?colours=red&colours=green", [("query", "colours/1")]),
        ("/filter?minPrice=x&colours=green&page=1", [("query", "minPrice"), ("query", "colours/0")]),
    ],
)
async def test_every_wrong_parameter_is_listed_when_a_request_is_refused(
    client: httpx.AsyncClient, path: str, faults: list[tuple[str, str]]
) -> None:
    """One answer names all that is wrong, where it was and under which name."""
    answer = await client.get(path)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert sorted((each["in"], each["parameter"]) for each in problem["errors"]) == sorted(faults)
    assert all(each["detail"] for each in problem["errors"])
    assert problem["code"] == "validation_error"


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/person", {}, ["#/name"]),
        ("/person", {"name": ""}, ["#/name"]),
        ("/person", {"name": 1, "age": "x", "addresses": [{"street": "s"}, {"street": 2, "number": 0}, 3]},
         ["#/name", "#/age", "#/addresses/0/number", "#/addresses/1/street", "#/addresses/1/number", "#/addresses/2"]),
        ("/person", [], ["#"]),
        ("/person", None, ["#"]),
        ("/people", [{"name": "a"}, {"nam": "b"}], ["#/1/name"]),
        ("/people", {"name": "a"}, ["#"]),
        ("/fields", {"name": None, "limit": 1.5}, ["#/name", "#/limit"]),
        ("/two", {"left": {"name": "a"}}, ["#/right"]),
        ("/two", {"left": {"name": 1}, "right": {}}, ["#/left/name", "#/right/name"]),
        ("/embed", {"name": "Ada"}, ["#/person"]),
        ("/scalar", "5", ["#"]),
    ],
)  # fmt: skip
async def test_every_wrong_part_of_a_body_has_its_pointer_when_it_is_refused(
    client: httpx.AsyncClient, path: str, body: object, pointers: list[str]
) -> None:
    """JSON pointers (RFC 6901) as URI fragments, one for each thing that is wrong."""
    answer = await client.post(path, content=msgspec.json.encode(body))
    assert answer.status_code == 400
    problem = answer.json()
    assert sorted(each["pointer"] for each in problem["errors"]) == sorted(pointers)
    assert {each["in"] for each in problem["errors"]} == {"body"}


async def test_names_are_escaped_when_a_pointer_holds_them(serve: Any, blank: Any) -> None:
    """`~` and `/` in a field's name are `~0` and `~1`."""
    Odd = msgspec.defstruct("Odd", [("field", int, msgspec.field(name="a/b~c"))])
    service = blank()

    async def odd(odd: Any) -> None: ...

    odd.__annotations__["odd"] = Odd
    service.post("/odd")(odd)
    client = await serve(service)
    answer = await client.post("/odd", json={"a/b~c": "x"})
    assert [each["pointer"] for each in answer.json()["errors"]] == ["#/a~1b~0c"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is missing"),
        (b"{", "not valid JSON"),
        (b'{"name": "\xff"}', "not valid UTF-8"),
        (b'{"name": "a"} x', "not valid JSON"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"name":' * 100_000, "not valid JSON|nests too deeply|expected"),
        (b'{"name": "a", "age": 1e999}', "expected|not valid"),
        (b"\x00", "not valid JSON"),
        (b'{"name": "\\ud800"}', "not valid"),
    ],
)
async def test_broken_json_is_refused_when_it_is_sent(client: httpx.AsyncClient, content: bytes, text: str) -> None:
    """Whatever is no JSON of the right shape is a 400 that says so, and the next request is served."""
    answer = await client.post("/person", content=content)
    assert answer.status_code == 400, answer.text
    assert re.search(text, answer.json()["detail"]), answer.text
    assert (await client.post("/person", json={"name": "Ada"})).status_code == 200


async def test_nesting_is_no_failure_when_a_handler_takes_anything(client: httpx.AsyncClient) -> None:
    """A thousand levels for a parameter of any type: an answer or a 400, never a 5xx."""
    for depth in (500, 1_000, 10_000, 200_000):
        answer = await client.post("/any", content=b"[" * depth + b"]" * depth)
        assert answer.status_code in (200, 400), (depth, answer.text)


@pytest.mark.parametrize(
    "name", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense", "json"]
)
async def test_body_is_refused_when_its_content_type_is_another(client: httpx.AsyncClient, name: str) -> None:
    """415 names what is taken; a page elsewhere cannot send JSON as plain text."""
    answer = await client.post("/person", content=b'{"name":"A"}', headers={"content-type": name})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["q=%ff", "q=%c3%28", "&".join(f"q{number}=%20" for number in range(1500))])
async def test_query_is_refused_when_it_cannot_be_read(client: httpx.AsyncClient, query: str) -> None:
    """What is no UTF-8, or has too many fields, is a 400."""
    assert (await client.get(f"/asked?{query}")).status_code == 400


async def test_body_is_refused_when_it_is_longer_than_the_limit(serve: Any) -> None:
    """413 over `max_body_bytes`, the service's or the route's, announced or not."""

    class Small(CliffracerService):
        @post("/small")
        async def small(self, blob: Annotated[bytes, Body()]) -> int:
            return len(blob)

        @post("/larger", max_body_bytes=2000)
        async def larger(self, blob: Annotated[bytes, Body()]) -> int:
            return len(blob)

    async def parts(count: int) -> Any:
        for _ in range(count):
            yield b"x" * 100

    client = await serve(Small, http={"max_body_bytes": 1000})
    assert (await client.post("/small", content=b"x" * 1000)).json() == 1000
    assert (await client.post("/small", content=parts(10))).json() == 1000
    assert (await client.post("/larger", content=parts(20))).json() == 2000
    for path, content in [("/small", b"x" * 1001), ("/small", parts(11)), ("/larger", parts(21))]:
        answer = await client.post(path, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "message_too_large")


async def not_in_path(id: Annotated[int, Path()]) -> None: ...
async def form_and_body(title: Annotated[str, Form()], person: Person) -> None: ...


@pytest.mark.parametrize(
    ("decorator", "function", "text"),
    [
        (get("/x"), not_in_path, "comes from the path, which has no '{id}'"),
        (post("/x"), form_and_body, "a form and a JSON body exclude each other; annotate person with Form"),
    ],
)
async def test_start_fails_when_a_parameter_cannot_be_bound(decorator: Any, function: Any, text: str) -> None:
    """What could never work is found at start."""
    service = CliffracerService(ServiceConfig(unique(), http_port=0))
    service.handler(decorator)(function)
    with pytest.raises(ConfigurationError, match=text):
        await service.start()


async def test_request_is_refused_when_a_handler_that_asks_for_it_is_called_by_rpc() -> None:
    """Over RPC there is no HTTP request: the caller hears of an error, the handler does not run."""

    class Both(CliffracerService):
        @rpc
        @get("/x")
        async def x(self, request: Request) -> str:
            return request.method

    async with Both(ServiceConfig(unique(), http_port=0)) as service:
        with pytest.raises(ConfigurationError, match="asks for the HTTP request, and was called by 'rpc'"):
            await service.rpc_call(service.name, "x")
