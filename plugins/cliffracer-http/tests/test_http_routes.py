"""Routes over a real server: methods, statuses, prefixes, stacking, and what is refused at start."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from cliffracer_http import Request, RouteOptions, delete, get, head, options, patch, post, put, route
from cliffracer_http.marks import METHODS
from cliffracer_http.model import models_of

from cliffracer_core import CliffracerService, ConfigurationError, Controller, ServiceConfig, rpc
from cliffracer_core.interfaces import Signature
from cliffracer_core.testing import unique

WRONG: Any = {"statuscode": 3}


class User(msgspec.Struct):
    name: str
    email: str


class Users(CliffracerService):
    @rpc
    @post("/users", status_code=201)
    async def create_user(self, name: str, email: str) -> User:
        return User(name, email)

    @get("/users/{user_id}")
    async def get_user(self, user_id: str) -> dict[str, str]:
        return {"user_id": user_id}

    @put("/users/{user_id}")
    async def update_user(self, user_id: str, user: User) -> dict[str, object]:
        return {"user_id": user_id, "user": user}

    @patch("/users/{user_id}")
    async def rename(self, user_id: int, name: str) -> list[object]:
        return [user_id, name]

    @delete("/users/{user_id}", status_code=204)
    async def delete_user(self, user_id: str) -> None:
        pass

    @get("/sync")
    def sync(self) -> str:
        return "in a thread"


async def test_reference_decorators_serve_when_a_service_starts(serve: Any) -> None:
    """The decorators of the reference documents, over a real connection."""
    client: httpx.AsyncClient = await serve(Users)
    made = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    assert (made.status_code, made.json()) == (201, {"name": "Ada", "email": "ada@example.com"})
    assert made.headers["content-type"] == "application/json"
    assert made.headers["content-length"] == str(len(made.content))
    assert (await client.get("/users/7")).json() == {"user_id": "7"}
    changed = await client.put("/users/7", json={"name": "B", "email": "b@example.com"})
    assert changed.json() == {"user_id": "7", "user": {"name": "B", "email": "b@example.com"}}
    assert (await client.patch("/users/7", json={"name": "C"})).json() == [7, "C"]
    gone = await client.delete("/users/7")
    assert (gone.status_code, gone.content) == (204, b"")
    assert "content-length" not in gone.headers
    assert (await client.get("/sync")).json() == "in a thread"


async def test_method_is_rpc_and_route_when_both_decorators_stand_on_it() -> None:
    """`@rpc` and `@post` on one method: one function, two ways in, one result."""
    async with Users(ServiceConfig(unique(), http_port=0)) as service:
        found = await service.rpc_call(service.name, "create_user", name="Ada", email="a@example.com")
        assert found == {"name": "Ada", "email": "a@example.com"}
        async with httpx.AsyncClient(base_url=service.http.url) as client:  # type: ignore[attr-defined]  # plugin's
            assert (await client.post("/users", json=found)).json() == found


def test_function_stays_as_it_is_when_it_is_decorated() -> None:
    """Decorated methods are called as before in unit tests."""

    async def handler() -> str:
        return "x"

    for decorator in (get, post, put, patch, delete, head, options, route):
        assert decorator("/x")(handler) is handler
    assert inspect.iscoroutinefunction(handler)


async def test_route_is_added_when_the_service_object_decorates(serve: Any, blank: Callable[..., Any]) -> None:
    """`@service.get(...)` and its kin, `@service.route` with any methods."""
    service = blank()

    async def a() -> str:
        return "a"

    async def b(request: Request) -> str:
        return request.method

    assert service.get("/a")(a) is a
    service.route("/b", ["REPORT", "PUT"], status_code=202)(b)
    client = await serve(service)
    assert (await client.get("/a")).json() == "a"
    for method in ("REPORT", "PUT"):
        answer = await client.request(method, "/b")
        assert (answer.status_code, answer.json()) == (202, method)


async def test_controller_has_routes_when_the_service_lists_it(serve: Any) -> None:
    """A controller's methods are routes like the service's own."""

    @Controller()
    class Greeter:
        @get("/hello/{name}")
        async def hello(self, name: str) -> str:
            return f"hello {name}"

    class Site(CliffracerService):
        controllers = [Greeter]

    client = await serve(Site)
    assert (await client.get("/hello/Ada")).json() == "hello Ada"


async def test_head_and_options_answer_when_nobody_declared_them(serve: Any) -> None:
    """HEAD is GET without its body; OPTIONS names the methods."""
    client = await serve(Users)
    got, headed = await client.get("/users/7"), await client.head("/users/7")
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]
    asked = await client.options("/users/7")
    assert (asked.status_code, asked.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")


async def test_declared_head_and_options_are_used_when_they_exist(serve: Any) -> None:
    """A handler for HEAD or OPTIONS comes before what is made up."""

    class Own(CliffracerService):
        @get("/x")
        async def got(self) -> str:
            return "got"

        @head("/x")
        async def headed(self) -> str:
            return "a longer text"

        @options("/x")
        async def asked(self) -> str:
            return "asked"

    client = await serve(Own)
    assert (await client.head("/x")).headers["content-length"] == str(len('"a longer text"'))
    assert (await client.options("/x")).json() == "asked"


async def test_prefix_and_version_stand_before_paths_when_set(serve: Any) -> None:
    """`http.prefix` is the service's, `version=` the route's; health stays at the root."""

    class Api(CliffracerService):
        @get("/users")
        async def one(self) -> int:
            return 1

        @get("/users", version="v2")
        async def two(self) -> int:
            return 2

    client = await serve(Api, http={"prefix": "/api/"})
    assert (await client.get("/api/users")).json() == 1
    assert (await client.get("/api/v2/users")).json() == 2
    assert (await client.get("/users")).status_code == 404
    assert (await client.get("/health")).status_code == 200


async def test_one_handler_serves_all_when_decorators_are_stacked(serve: Any) -> None:
    """Several routes on one method; scalars come from the query on GET and from the body on POST."""

    class Search(CliffracerService):
        @get("/search")
        @post("/search", status_code=201)
        async def search(self, q: str, limit: int = 10) -> list[object]:
            return [q, limit]

    client = await serve(Search)
    assert (await client.get("/search", params={"q": "x", "limit": 3})).json() == ["x", 3]
    posted = await client.post("/search", json={"q": "y"})
    assert (posted.status_code, posted.json()) == (201, ["y", 10])


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda: get("/x", status_code=99), "status_code 99 is not one from 200"),
        (lambda: get("/x", timeout=0), "timeout 0 is not above 0"),
        (lambda: get("/x", **WRONG), "options are status_code, tags"),
        (lambda: route("/x", []), "methods \\[\\] are none"),
        (lambda: route("/x", ["get"]), "name some such as 'GET'"),
    ],
)
def test_decorator_refuses_when_an_option_cannot_be(declare: Callable[[], object], text: str) -> None:
    """A wrong option is found where it stands, not at the first request."""
    with pytest.raises(ConfigurationError, match=text):
        declare()


def _service(*functions: tuple[Callable[[Any], Any], Any]) -> Any:
    service = CliffracerService(ServiceConfig(unique(), http_port=0))
    for decorator, function in functions:
        service.handler(decorator)(function)
    return service


async def first(id: str) -> str:
    return id


async def second(name: str) -> str:
    return name


async def nothing() -> None: ...


async def nowhere() -> None: ...


@pytest.mark.parametrize(
    ("functions", "text"),
    [
        ([(get("/a/{id}"), first), (get("/a/{name}"), second)], "two handlers for 'GET /a/{name}'"),
        ([(get("/a/{id}"), nothing)], "has \\['id'\\], which no parameter takes"),
        ([(get("a"), nowhere)], "begins with '/'"),
    ],
)
async def test_start_fails_when_routes_cannot_be_served(functions: Any, text: str) -> None:
    """Two handlers of one method and path, a path nobody takes the parameters of, a path that is none."""
    with pytest.raises(ConfigurationError, match=text):
        await _service(*functions).start()


async def test_start_fails_when_the_plugin_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A marked handler never runs unserved in silence."""
    monkeypatch.setenv("CLIFFRACER_DISABLE", "http")
    with pytest.raises(ConfigurationError, match="install cliffracer-http or enable it"):
        await _service((get("/a"), nothing)).start()


async def test_service_can_start_again_when_it_has_stopped() -> None:
    """Routes, app and port are there again after a stop."""
    service: Any = Users(ServiceConfig(unique(), http_port=0))
    app = service.app
    for _ in range(2):
        async with service, httpx.AsyncClient(base_url=service.http.url) as client:
            assert (await client.get("/users/1")).json() == {"user_id": "1"}
            assert service.app is app


async def test_no_port_is_opened_when_a_service_has_no_routes(blank: Callable[..., Any]) -> None:
    """An RPC service with this plugin installed listens for nothing, unless told to for /health alone."""
    service = blank()
    async with service:
        with pytest.raises(ConnectionError, match="serves no HTTP; add a route, or set http.enabled"):
            _ = service.http.url
    service = blank(http={"enabled": True})
    async with service, httpx.AsyncClient(base_url=service.http.url) as client:
        assert (await client.get("/health")).status_code == 200


def test_model_tells_of_a_route_when_it_is_asked_for() -> None:
    """What documentation is generated from: parameters with place, type, default; body; result; docstring."""

    async def find(id: int, q: str, limit: int = 10) -> list[str]:
        """Find things.

        Of all kinds.
        """
        return []

    from cliffracer_core.handlers import Declaration, marks_of

    marked = get("/things/{id}", tags=["things"], errors=[KeyError])(find)
    declaration = Declaration("shop", "find", marked, marks_of(marked), inspect.getdoc(find) or "")
    (model,) = models_of(declaration, Signature(dict, list[str]), "/api")
    assert (model.method, model.path, model.where) == ("GET", "/api/things/{id}", "GET /api/things/{id}")
    assert [(each.name, each.where, each.type, each.required) for each in model.parameters] == [
        ("id", "path", int, True), ("q", "query", str, True), ("limit", "query", int, False),
    ]  # fmt: skip
    assert (model.summary, model.description, model.tags) == ("Find things.", "Of all kinds.", ("things",))
    assert (model.body, model.returns, model.status_code, model.errors) == (None, list[str], 200, (KeyError,))
    assert isinstance(marks_of(marked)[0].options, RouteOptions)
    assert set(METHODS) >= {"GET", "POST"}
