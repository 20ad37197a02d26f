"""The OpenAPI document: valid, and what it says is what the routes do."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from cliffracer_cli.testing import CommandLine
from cliffracer_http import (
    Body,
    Cookie,
    Event,
    FileResponse,
    Form,
    Header,
    HTMLResponse,
    PlainTextResponse,
    Query,
    RedirectResponse,
    Reply,
    Request,
    Response,
    UploadFile,
    Uploads,
    delete,
    get,
    post,
    put,
    route,
)
from cliffracer_http.openapi import described, openapi_document
from openapi_spec_validator import validate

from cliffracer_core import (
    CliffracerService,
    ConfigurationError,
    ConflictError,
    MessageContext,
    NotFoundError,
    ServiceConfig,
    ServiceError,
    hookimpl,
    rpc,
)
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Security

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def routes(document: Any) -> list[str]:
    """Return the paths of a document, without those of health."""
    return [path for path in document["paths"] if not path.startswith("/health")]


class OutOfStock(ServiceError, code="openapi_out_of_stock", status=409):
    """Nothing is left."""


class User(msgspec.Struct):
    """Somebody."""

    name: Annotated[str, msgspec.Meta(min_length=1, description="as written")]
    born: datetime.datetime | None = None


class Filter(msgspec.Struct, kw_only=True):
    colour: str
    size: list[int] = []


class Users(CliffracerService):
    name = "users"
    version = "1.2.0"
    description = "Who is who."

    @rpc
    @post("/users", status_code=201, tags=["people"], errors=[OutOfStock])
    async def create(self, name: str, tags: list[str] = []) -> User:  # noqa: B006
        """Make a user.

        Text that explains it.

        Args:
            name: what they are called
            tags: of any kind

        Returns:
            The user.

        Raises:
            ConflictError: there is one already

        Example:
            {"name": "Ada", "tags": ["a"]} -> {"name": "Ada", "born": null}
        """
        return User(name)

    @get("/users/{id}")
    async def find(
        self, id: int, filter: Annotated[Filter, Query()], level: Annotated[int, Header("X-Level", "how deep")] = 0,
        sid: Annotated[str | None, Cookie()] = None, accept: Annotated[str, Header()] = "",
    ) -> User | None:  # fmt: skip
        """Find a user.

        Args:
            id: their number
            level: not this text

        Raises:
            NotFoundError: there is none
            LookupError: not shown

        Example:
            {"id": 7, "filter": {"colour": "red"}, "level": 2}
        """

    @put("/users/{id}", deprecated=True, summary="Swap", description="Put another in place.")
    async def replace(self, id: int, user: User, context: MessageContext, request: Request) -> None:
        """Not this text."""

    @delete("/users/{id}", status_code=204)
    async def remove(self, id: int) -> None: ...

    @route("/both", ["PUT", "POST"])
    async def both(self, whole: Annotated[User | None, Body(description="who")] = None) -> str | Response:
        return ""

    @post("/form")
    async def form(self, name: Annotated[str, Form()], at: Annotated[Filter | None, Form()] = None) -> None: ...

    @post("/upload")
    async def upload(self, file: UploadFile, more: Uploads, note: Annotated[str, Form()] = "x") -> None: ...

    @post("/raw")
    async def raw(self, content: Annotated[bytes, Body()]) -> Reply:
        raise NotImplementedError

    @get("/page")
    async def page(self) -> Reply:
        raise NotImplementedError

    @get("/files/{path:path}", version="v2")
    async def file(self, path: str) -> FileResponse:
        raise NotImplementedError

    @get("/html")
    async def html(self) -> HTMLResponse | PlainTextResponse:
        raise NotImplementedError

    @get("/old")
    async def old(self) -> RedirectResponse:
        raise NotImplementedError

    @get("/csv", media_type="text/csv")
    async def csv(self) -> str:
        raise NotImplementedError

    @get("/numbers")
    async def numbers(self) -> AsyncIterator[int]:
        yield 1

    @get("/news")
    async def news(self) -> AsyncIterator[Event]:
        yield Event()

    @get("/bytes")
    async def parts(self) -> AsyncIterator[bytes]:
        yield b""

    @get("/hidden", include_in_schema=False)
    async def hidden(self) -> None: ...

    @route("/purge", ["PURGE"])
    async def purge(self) -> None: ...


@pytest.fixture(scope="module")
def document() -> Any:
    service: Any = Users(ServiceConfig("users", http={"prefix": "/api"}))
    return json.loads(json.dumps(asyncio.run(service.openapi())))


def operation(document: Any, method: str, path: str) -> Any:
    return document["paths"][f"/api{path}"][method]


def parameters(document: Any, method: str, path: str) -> dict[str, Any]:
    return {each["name"]: each for each in operation(document, method, path).get("parameters", ())}


def test_document_is_valid_when_a_service_uses_everything(document: Any) -> None:
    """OpenAPI 3.1, by its own schema."""
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_head_of_the_document(document: Any) -> None:
    """Title, version and text are the service's; tags are listed, with the service's text."""
    assert document["info"] == {"title": "users", "version": "1.2.0", "description": "Who is who."}
    assert document["tags"][:-1] == [{"name": "people"}, {"name": "users", "description": "Who is who."}]
    assert document["tags"][-1]["name"] == "health"
    assert document["servers"] == [{"url": "/"}]


def test_paths_have_prefix_and_version_and_only_what_is_to_be_seen(document: Any) -> None:
    """Prefix and version stand in the path; hidden routes and methods that OpenAPI lacks are left out."""
    assert "/api/v2/files/{path}" in document["paths"]
    assert not {"/api/hidden", "/api/purge"} & document["paths"].keys()


def test_docstring_is_summary_text_arguments_and_result(document: Any) -> None:
    """Each part of a docstring stands where it belongs; options of the decorator win."""
    found = operation(document, "post", "/users")
    assert (found["summary"], found["description"]) == ("Make a user.", "Text that explains it.")
    assert (found["operationId"], found["tags"]) == ("create", ["people"])
    assert found["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "what they are called"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": [], "description": "of any kind"},
        },
        "required": ["name"],
    }
    assert found["responses"]["201"]["description"] == "The user."
    swapped = operation(document, "put", "/users/{id}")
    assert (swapped["summary"], swapped["description"], swapped["deprecated"]) == (
        "Swap",
        "Put another in place.",
        True,
    )


def test_examples_are_those_of_the_docstring(document: Any) -> None:
    """The body's, the result's, and each parameter's own."""
    found = operation(document, "post", "/users")
    for content, value in (
        (found["requestBody"]["content"], {"name": "Ada", "tags": ["a"]}),
        (found["responses"]["201"]["content"], {"name": "Ada", "born": None}),
    ):
        assert content.keys() == {"application/json", "application/msgpack"}
        assert all(each["examples"] == {"example1": {"value": value}} for each in content.values())
    given = parameters(document, "get", "/users/{id}")
    assert {name: each.get("example") for name, each in given.items()} == {
        "id": 7, "colour": "red", "size": None, "X-Level".lower(): 2, "sid": None
    }  # fmt: skip


def test_parameters_say_where_and_what_they_are(document: Any) -> None:
    """Path, query field by field, header, cookie; `Accept` has its own place in OpenAPI."""
    given = parameters(document, "get", "/users/{id}")
    assert {name: (each["in"], each.get("required", False)) for name, each in given.items()} == {
        "id": ("path", True), "colour": ("query", True), "size": ("query", False),
        "x-level": ("header", False), "sid": ("cookie", False),
    }  # fmt: skip
    assert given["id"]["schema"] == {"type": "integer"}
    assert given["size"]["schema"] == {"type": "array", "items": {"type": "integer"}, "default": []}
    assert given["x-level"]["schema"] == {"type": "integer", "default": 0}
    assert given["sid"]["schema"] == {"type": "string"}
    assert (given["id"]["description"], given["x-level"]["description"]) == ("their number", "how deep")


def test_bodies_say_what_they_are(document: Any) -> None:
    """A whole body refers to its type; one that may be left out is not required; bytes are of any type."""
    body = operation(document, "put", "/users/{id}")["requestBody"]
    assert body["required"] is True
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/User"}
    both = operation(document, "post", "/both")["requestBody"]
    assert "required" not in both
    assert both["description"] == "who"
    assert operation(document, "post", "/raw")["requestBody"]["content"] == {"*/*": {"schema": {}}}


def test_forms_say_what_they_are(document: Any) -> None:
    """Fields in both encodings; with files only the one that carries them."""
    form = operation(document, "post", "/form")["requestBody"]["content"]
    assert form.keys() == {"application/x-www-form-urlencoded", "multipart/form-data"}
    schema = form["multipart/form-data"]["schema"]
    assert (list(schema["properties"]), schema["required"]) == (["name", "colour", "size"], ["name"])
    upload = operation(document, "post", "/upload")["requestBody"]["content"]
    assert upload.keys() == {"multipart/form-data"}
    schema = upload["multipart/form-data"]["schema"]
    assert schema["properties"]["file"]["contentMediaType"] == "application/octet-stream"
    assert schema["properties"]["more"]["items"]["format"] == "binary"
    assert schema["properties"]["note"] == {"type": "string", "default": "x"}
    assert schema["required"] == ["file", "more"]


@pytest.mark.parametrize(
    ("method", "path", "statuses", "media_types"),
    [
        ("delete", "/users/{id}", {"204"}, set()),
        ("get", "/users/{id}", {"200"}, {"application/json", "application/msgpack"}),
        ("post", "/both", {"200"}, {"*/*", "application/json", "application/msgpack"}),
        ("get", "/page", {"200", "304"}, {"application/json", "application/msgpack"}),
        ("post", "/raw", {"200"}, {"application/json", "application/msgpack"}),
        ("get", "/v2/files/{path}", {"200"}, {"*/*"}),
        ("get", "/html", {"200"}, {"text/html", "text/plain"}),
        ("get", "/old", {"3XX"}, set()),
        ("get", "/csv", {"200"}, {"text/csv"}),
        ("get", "/numbers", {"200"}, {"application/x-ndjson", "text/event-stream"}),
        ("get", "/news", {"200"}, {"text/event-stream"}),
        ("get", "/bytes", {"200"}, {"application/octet-stream", "text/event-stream"}),
    ],
)
def test_success_says_what_is_sent(
    document: Any, method: str, path: str, statuses: set[str], media_types: set[str]
) -> None:
    """Status and content types of each kind of result."""
    responses = operation(document, method, path)["responses"]
    found = {status for status in responses if status[0] in "23"}
    assert found == statuses
    assert {name for status in found for name in responses[status].get("content", {})} == media_types
    assert all("X-Correlation-ID" in responses[status]["headers"] for status in found)


def test_items_of_streams_are_described(document: Any) -> None:
    """What one line, and the data of one event, holds."""
    content = operation(document, "get", "/numbers")["responses"]["200"]["content"]
    assert content["application/x-ndjson"]["x-item-schema"] == {"type": "integer"}
    assert content["text/event-stream"]["x-item-schema"]["properties"]["data"]["contentSchema"] == {"type": "integer"}


def test_errors_are_problems_with_their_meaning(document: Any) -> None:
    """Those of the decorator and of `Raises:`, those that any request may meet, and all others."""
    responses = operation(document, "post", "/users")["responses"]
    assert set(responses) == {"201", "400", "409", "413", "415", "default"}
    assert responses["409"]["description"] == "Nothing is left. there is one already"
    assert all(responses[each]["content"] == PROBLEM for each in ("400", "409", "413", "415"))
    found = operation(document, "get", "/users/{id}")["responses"]
    assert set(found) == {"200", "400", "404", "default"}
    assert found["404"]["description"] == "there is none"
    assert document["components"]["responses"]["Problem"]["content"] == PROBLEM
    assert {"title", "status"} <= set(document["components"]["schemas"]["Problem"]["required"])


def test_health_pages_are_described(document: Any) -> None:
    """At the root, whatever the prefix; 503 where one may say no."""
    found = {path: set(each["get"]["responses"]) for path, each in document["paths"].items() if "health" in path}
    assert found == {
        "/health": {"200", "default"},
        "/health/live": {"200", "default"},
        "/health/ready": {"200", "503", "default"},
        "/health/detailed": {"200", "503", "default"},
    }


async def test_health_page_is_left_out_when_a_route_stands_in_its_place() -> None:
    """A handler's own page is described; one that is only named alike leaves the names of operations unique."""

    class Own(CliffracerService):
        @get("/health")
        async def mine(self) -> int:
            return 1

        @get("/x")
        async def health_live(self) -> int:
            return 1

    service: Any = Own()
    paths = (await service.openapi())["paths"]
    assert paths["/health"]["get"]["operationId"] == "mine"
    assert paths["/health/live"]["get"]["operationId"] == "health_live_page"


async def test_ways_in_are_described_when_a_plugin_says_them(serve: Any) -> None:
    """Schemes, what each operation wants of a caller, its refusals; one name that means two is made into two."""

    class Guarding:
        def __init__(self, scheme: dict[str, object]) -> None:
            self.scheme = scheme

        @hookimpl
        def cliffracer_register_security(self, declaration: Declaration) -> list[Security]:
            key = Security(name="key", scheme=self.scheme, scopes=["read"] if declaration.name == "find" else ())
            return {"find": [key], "peek": [key, Security()]}.get(declaration.name, [])

    class Guarded(CliffracerService):
        @get("/x")
        async def find(self) -> int:
            return 1

        @get("/peek")
        async def peek(self) -> int:
            return 1

        @get("/open")
        async def open(self) -> int:
            return 1

    header: dict[str, object] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    bearer: dict[str, object] = {"type": "http", "scheme": "bearer"}
    one: Any = Guarded(ServiceConfig("one"), plugins={"guarding": Guarding(header)})
    other: Any = Guarded(ServiceConfig("other", http={"prefix": "/v2"}), plugins={"guarding": Guarding(bearer)})
    document = openapi_document([described(await each.wiring()) for each in (one, other)])
    validate(document)
    assert document["components"]["securitySchemes"] == {"key": header, "other.key": bearer}
    operations = {path: methods["get"] for path, methods in document["paths"].items()}
    assert operations["/x"]["security"] == [{"key": ["read"]}]
    assert {"401", "403"} <= set(operations["/x"]["responses"])
    assert operations["/peek"]["security"] == [{"key": []}, {}]
    assert operations["/v2/x"]["security"] == [{"other.key": ["read"]}]
    assert "security" not in operations["/open"]
    assert "401" not in operations["/open"]["responses"]
    client = await serve(Guarded, plugins={"guarding": Guarding(header)})
    served = (await client.get("/openapi.json")).json()
    assert served["components"]["securitySchemes"] == {"key": header}
    assert served["paths"]["/x"]["get"]["security"] == [{"key": ["read"]}]


async def test_idempotency_key_is_described_where_it_is_heeded() -> None:
    """Where a handler may change something; not for streams and uploads, which are not remembered."""

    class Keyed(CliffracerService):
        @get("/x")
        async def find(self) -> int:
            return 1

        @post("/x")
        async def add(self, n: int) -> int:
            return n

        @delete("/x")
        async def remove(self) -> None: ...

        @post("/stream")
        async def stream(self) -> AsyncIterator[int]:
            yield 1

        @post("/upload")
        async def upload(self, file: UploadFile) -> None: ...

    service: Any = Keyed()
    document = await service.openapi()
    reference = {"$ref": "#/components/parameters/IdempotencyKey"}
    having = {
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, each in methods.items()
        if reference in each.get("parameters", ())
    }
    assert having == {"post /x", "delete /x"}
    assert document["components"]["parameters"]["IdempotencyKey"]["name"] == "Idempotency-Key"


def test_names_of_operations_are_unique(document: Any) -> None:
    """The handler's name, and more where it has several routes."""
    names = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(names) == len(set(names))
    assert {operation(document, each, "/both")["operationId"] for each in ("put", "post")} == {"both", "users.both"}


async def test_example_that_does_not_fit_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """A docstring that went stale misleads nobody, and the log says where it is."""

    class Stale(CliffracerService):
        @get("/stale/{id}")
        async def stale(self, id: int) -> int:
            """Do it.

            Example:
                {"id": "seven"} -> 1
            """
            return id

    service: Any = Stale()
    with caplog.at_level(logging.WARNING, "cliffracer.http"):
        (found,) = (await service.openapi())["paths"]["/stale/{id}"]["get"]["parameters"]
    assert "example" not in found
    assert "GET /stale/{id}: an example in its docstring does not fit" in caplog.text


async def test_service_that_is_wrong_is_refused_as_at_its_start() -> None:
    """The document of a service that could not start is an error, not a half."""

    class Wrong(CliffracerService):
        @get("/x/{id}")
        async def x(self) -> None: ...

    service: Any = Wrong()
    with pytest.raises(ConfigurationError, match="which no parameter takes"):
        await service.openapi()


APP = '''
from cliffracer_core import CliffracerService, rpc
from cliffracer_http import get


class Users(CliffracerService):
    name = "users"

    @get("/users/{id}")
    async def find(self, id: int) -> str:
        """Find a user."""


class Orders(CliffracerService):
    name = "orders"

    @get("/orders")
    async def find(self) -> list[str]:
        """List orders."""
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_command_writes_the_document_without_a_broker(folder: Path) -> None:
    """`cliffracer openapi`: settings of the command line count, and nothing need be there to connect to."""
    options = ("--transport", "nats://127.0.0.1:1", "--set", "http.prefix=/api", "--server", "https://example.com")
    with CommandLine("openapi", "app:Users", *options, directory=folder) as process:
        found = process.json()
    validate(found)
    assert routes(found) == ["/api/users/{id}"]
    assert found["servers"] == [{"url": "https://example.com"}]


def test_command_describes_several_services_as_one_in_a_file(folder: Path) -> None:
    """Several targets are one document, whose operations keep unique names; `--output` writes a file."""
    with CommandLine("openapi", "app:Users", "app:Orders", "-o", "api.json", directory=folder) as process:
        assert process.wait() == 0
    assert process.out == []
    found = json.loads((folder / "api.json").read_text())
    validate(found)
    assert found["info"]["title"] == "users, orders"
    assert [next(iter(each.values()))["operationId"] for each in (found["paths"][path] for path in routes(found))] == [
        "find",
        "orders.find",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["app:Nothing"], 2, "has no 'Nothing'; services in it: Orders, Users"),
        (["app:Users", "--output", "no/such/folder"], 2, "file 'no/such/folder' cannot be written"),
        (["app:Users", "--set", "http.prot=1"], 3, "did you mean"),
    ],
)
def test_command_says_what_is_wrong(folder: Path, arguments: list[str], code: int, text: str) -> None:
    """One line on standard error, and the exit code that the help lists."""
    with CommandLine("openapi", *arguments, directory=folder) as process:
        assert process.wait() == code
    assert text in "\n".join(process.err)


_ = (ConflictError, NotFoundError)  # named by docstrings
