"""`service.app`, middleware, CORS, compression, static files: what stands around the routes."""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from cliffracer_http import Application, PlainTextResponse, Request, get
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.websockets import WebSocket

from cliffracer_core import (
    AuthenticationError,
    CliffracerService,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    Overloaded,
    ServiceConfig,
    ServiceInfo,
    hookimpl,
)
from cliffracer_core.testing import unique


class OutOfTea(ConflictError, code="out_of_tea_in_tests", status=418):
    """Of an application."""


class Shop(CliffracerService):
    app: Application

    @get("/items/{id}")
    async def item(self, id: str) -> str:
        return id

    @get("/long")
    async def long(self) -> str:
        return "x" * 5000

    @get("/fail/{how}")
    async def fail(self, how: str) -> None:
        errors: dict[str, Exception] = {
            "tea": OutOfTea("no tea", details={"left": 0}),
            "missing": NotFoundError("no such item"),
            "auth": AuthenticationError("who are you"),
            "busy": Overloaded("later"),
            "http": HTTPException(409, "as Starlette says", headers={"X-Why": "because"}),
            "bug": RuntimeError("secret path /etc/passwd"),
            "key": KeyError("password"),
        }
        raise errors[how]


class Stamp:
    """Pure ASGI middleware that leaves its name in a header."""

    def __init__(self, app: Any, name: str = "stamp") -> None:
        self.app, self.name = app, name.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-stamp", self.name)]}
            await send(message)

        await self.app(scope, receive, stamped)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.path_params.get('name', '')}")


async def crash(request: Request) -> PlainTextResponse:
    raise RuntimeError("secret of a mounted application")


async def refuse(request: Request) -> PlainTextResponse:
    raise HTTPException(403, "not here")


MOUNTED = Starlette(routes=[Route("/hello/{name}", hello), Route("/crash", crash), Route("/refuse", refuse)])


def shop(**http: Any) -> Any:
    return Shop(ServiceConfig(unique(), http={"port": 0, **http}))


# --- problems ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "status", "code", "detail", "header"),
    [
        ("tea", 418, "out_of_tea_in_tests", "no tea", None),
        ("missing", 404, "not_found", "no such item", None),
        ("auth", 401, "unauthenticated", "who are you", ("www-authenticate", "Bearer")),
        ("busy", 503, "overloaded", "later", ("retry-after", "1")),
        ("http", 409, "", "as Starlette says", ("x-why", "because")),
    ],
)
async def test_error_is_a_problem_when_a_handler_raises_it(
    serve: Any, how: str, status: int, code: str, detail: str, header: tuple[str, str] | None
) -> None:
    """The kernel's tree and Starlette's HTTPException: one body, with the status, the code and the id."""
    client: httpx.AsyncClient = await serve(shop())
    answer = await client.get(f"/fail/{how}")
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem.get("code", ""), problem["detail"]) == (status, code, detail)
    assert problem["correlation_id"] == answer.headers["x-correlation-id"]
    assert problem["type"] == "about:blank"
    if header is not None:
        assert answer.headers[header[0]] == header[1]
    assert problem.get("details", {}) == ({"left": 0} if how == "tea" else {})


@pytest.mark.parametrize("how", ["bug", "key", "nonexistent"])
async def test_nothing_internal_leaks_when_a_handler_crashes(
    serve: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an id, the log the trace under that id."""
    client: httpx.AsyncClient = await serve(shop())
    answer = await client.get(f"/fail/{how}")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "internal_error")
    assert problem["detail"] == f"internal error; correlation id {problem['correlation_id']}"
    assert "passw" not in answer.text
    (record,) = [each for each in caplog.records if each.name == "cliffracer.http"]
    assert problem["correlation_id"] in record.getMessage()
    assert record.exc_info is not None


async def test_unknown_paths_and_methods_are_problems_when_asked_for(serve: Any) -> None:
    """404, 405 with `Allow`, also for HEAD without a body."""
    client: httpx.AsyncClient = await serve(shop())
    missing = await client.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await client.post("/items/1")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (
        405,
        "method_not_allowed",
        "GET, HEAD, OPTIONS",
    )
    head = await client.head("/nowhere")
    assert (head.status_code, head.content) == (404, b"")
    assert (await client.request("PROPFIND", "/items/1")).status_code == 405
    assert all("x-correlation-id" in each.headers for each in (missing, wrong, head))


# --- the Starlette application ----------------------------------------------------------------------


async def test_application_is_starlettes_when_it_is_used_before_or_after_the_start(serve: Any) -> None:
    """`mount` and `add_route` before the start and while it runs; the service's own routes come first."""
    service = shop()
    assert isinstance(service.app, Starlette)
    service.app.mount("/sub", MOUNTED)
    service.app.add_route("/items/{name}", hello)
    client: httpx.AsyncClient = await serve(service)
    assert (await client.get("/sub/hello/Ada")).text == "hello Ada"
    assert (await client.get("/items/7")).json() == "7"
    assert (await client.post("/items/7")).status_code == 405
    assert (await client.get("/late")).status_code == 404
    service.app.add_route("/late", hello)
    assert (await client.get("/late")).text == "hello "


async def test_application_is_found_when_it_is_first_used_while_running(serve: Any) -> None:
    """The running service's own application, not another one."""
    service = shop()
    client: httpx.AsyncClient = await serve(service)
    service.app.mount("/sub", MOUNTED)
    assert (await client.get("/sub/hello/Ada")).text == "hello Ada"


async def test_service_listens_when_it_has_an_application_and_no_routes(serve: Any, blank: Callable[..., Any]) -> None:
    """Mounting alone is something to serve."""
    service = blank()
    service.app.mount("/sub", MOUNTED)
    client: httpx.AsyncClient = await serve(service)
    assert (await client.get("/sub/hello/Ada")).text == "hello Ada"


async def test_errors_of_mounted_routes_are_problems_when_they_raise(serve: Any) -> None:
    """Routes of `service.app` speak as the others do: status, id, nothing internal."""
    service = shop()
    service.app.add_route("/crash", crash)
    service.app.add_route("/refuse", refuse, methods=["GET"])
    client: httpx.AsyncClient = await serve(service)
    crashed, refused = await client.get("/crash"), await client.get("/refuse")
    assert (crashed.status_code, crashed.json()["code"]) == (500, "internal_error")
    assert "secret" not in crashed.text
    assert (refused.status_code, refused.json()["detail"]) == (403, "not here")
    wrong = await client.post("/refuse")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")


async def test_exception_handler_answers_when_it_is_added(serve: Any) -> None:
    """By class, the nearest one, sync or async, and by status; the response has its id."""

    async def tea(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path}: {error}", 200)

    def missing(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("nothing", 404)

    service = shop()
    service.app.add_exception_handler(ConflictError, tea)
    service.app.add_exception_handler(404, missing)
    client: httpx.AsyncClient = await serve(service)
    answer = await client.get("/fail/tea")
    assert (answer.status_code, answer.text) == (200, "/fail/tea: no tea")
    assert "x-correlation-id" in answer.headers
    assert (await client.get("/fail/missing")).text == "nothing"
    assert (await client.get("/nowhere")).text == "nothing"
    assert (await client.get("/fail/auth")).status_code == 401


async def test_middleware_wraps_everything_when_it_is_added(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From configuration, hooks and `app.add_middleware`, in this order from the outside; unknown paths too."""

    class Stamps:
        @hookimpl
        def cliffracer_register_asgi_middleware(self, service: ServiceInfo) -> Sequence[Callable[..., Any]]:
            return [lambda app: Stamp(app, "hook 1"), lambda app: Stamp(app, "hook 2")]

    module = types.ModuleType("stamps_for_tests")
    module.first = lambda app: Stamp(app, "configured")  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "stamps_for_tests", module)
    service: Any = Shop(
        ServiceConfig(unique(), http={"port": 0, "middleware": ["stamps_for_tests:first"]}),
        plugins={"stamps": Stamps()},
    )
    service.app.add_middleware(Stamp, name="added")
    client: httpx.AsyncClient = await serve(service)
    for path in ("/items/1", "/nowhere"):
        answer = await client.get(path)
        assert answer.headers.get_list("x-stamp") == ["added", "hook 2", "hook 1", "configured"]


@pytest.mark.parametrize(
    ("http", "text"),
    [
        ({"middleware": ["no_such_module:x"]}, "http.middleware: 'no_such_module:x' cannot be imported"),
        ({"middleware": ["json:no_such"]}, "write it as 'module:factory'"),
        ({"cors": {"origins": ["*"], "credentials": True}}, "credentials need origins by name"),
        ({"static": {"/files": "/no/such/folder"}}, "http.static: folder '/no/such/folder' does not exist"),
        ({"static": {"/{x}": "."}}, "has parameters"),
        ({"spa": "/no/such/folder"}, "http.spa: folder"),
        ({"prot": 1}, "prot"),
    ],
)
async def test_start_fails_when_settings_cannot_be(http: dict[str, Any], text: str) -> None:
    """The error names the setting and what to do."""
    with pytest.raises(ConfigurationError, match=text):
        await shop(**http).start()


async def test_failure_of_middleware_is_a_closed_request_when_it_raises(serve: Any) -> None:
    """It ends its request and no other, as a problem; what it answers itself has an id, and what CORS adds."""

    def crashing(app: Any) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/items/crash":
                raise RuntimeError("middleware is broken")
            if scope["path"] == "/items/busy":
                raise ConflictError("not now")
            if scope["path"] == "/items/stop":
                await PlainTextResponse("stop", 403)(scope, receive, send)
                return
            await app(scope, receive, send)

        return call

    service = shop(cors={"origins": [ORIGIN]})
    service.app.add_middleware(crashing)
    client: httpx.AsyncClient = await serve(service)
    headers = {"origin": ORIGIN, "x-correlation-id": "mine"}
    crashed, busy, stopped, served = [
        await client.get(f"/items/{name}", headers=headers) for name in ("crash", "busy", "stop", "1")
    ]
    assert (crashed.status_code, crashed.json()["code"], "broken" in crashed.text) == (500, "internal_error", False)
    assert (busy.status_code, busy.json()["detail"]) == (409, "not now")
    assert (stopped.status_code, stopped.text, served.status_code) == (403, "stop", 200)
    for answer in (crashed, busy, stopped, served):
        assert answer.headers.get_list("x-correlation-id") == ["mine"]
        assert answer.headers["access-control-allow-origin"] == ORIGIN


# --- CORS and compression ---------------------------------------------------------------------------

ORIGIN = "https://app.example.com"


async def test_page_elsewhere_may_read_when_its_origin_is_configured(serve: Any) -> None:
    """Simple and preflight requests of that origin; others are answered without permission."""
    cors = {"origins": [ORIGIN], "headers": ["X-Own"], "credentials": True}
    client: httpx.AsyncClient = await serve(shop(cors=cors))
    simple = await client.get("/items/1", headers={"origin": ORIGIN})
    assert simple.headers["access-control-allow-origin"] == ORIGIN
    assert simple.headers["access-control-allow-credentials"] == "true"
    assert simple.headers["access-control-expose-headers"] == "X-Correlation-ID"
    asked = {"origin": ORIGIN, "access-control-request-method": "GET", "access-control-request-headers": "x-own"}
    preflight = await client.options("/items/1", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-max-age"]) == (200, "600")
    assert "x-own" in preflight.headers["access-control-allow-headers"].lower()
    other = await client.get("/items/1", headers={"origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in other.headers
    problem = await client.get("/nowhere", headers={"origin": ORIGIN})
    assert (problem.status_code, problem.headers["access-control-allow-origin"]) == (404, ORIGIN)


async def test_no_origin_is_allowed_when_none_is_configured(serve: Any) -> None:
    """Closed by default."""
    client: httpx.AsyncClient = await serve(shop())
    answer = await client.get("/items/1", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_response_is_compressed_when_it_is_worth_it(serve: Any) -> None:
    """gzip where the client takes it and the body is long, from `compression`."""
    client: httpx.AsyncClient = await serve(shop(compression=True))
    long = await client.get("/long", headers={"accept-encoding": "gzip"})
    assert (long.headers["content-encoding"], long.json()) == ("gzip", "x" * 5000)
    assert int(long.headers["content-length"]) < 500
    assert "content-encoding" not in (await client.get("/items/1", headers={"accept-encoding": "gzip"})).headers
    assert "content-encoding" not in (await client.get("/long", headers={"accept-encoding": "identity"})).headers


# --- files ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    site = tmp_path / "site"
    (site / "assets").mkdir(parents=True)
    (site / "index.html").write_text("<title>app</title>")
    (site / "assets" / "app.js").write_text("let x = 1")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    return site


async def test_files_are_served_when_a_folder_is_configured(serve: Any, folder: Path) -> None:
    """With type, tag and ranges; missing ones, other methods and ways out of the folder are problems."""
    client: httpx.AsyncClient = await serve(shop(static={"/files": str(folder)}))
    found = await client.get("/files/assets/app.js")
    assert (found.text, found.headers["content-type"].split(";")[0]) == ("let x = 1", "text/javascript")
    again = await client.get("/files/assets/app.js", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "x-correlation-id" in found.headers
    for path in ("none.js", "assets", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "link.txt", "a%00b",
                 "assets/%2e%2e/%2e%2e/secret.txt", "%5c..%5csecret.txt", "/etc/passwd", "x" * 5000):  # fmt: skip
        answer = await client.get(f"/files/{path}")
        assert answer.status_code in (404, 405), path
        assert "secret" not in answer.text.replace("secret.txt", "")
    beyond = await client.get("/files/assets/app.js", headers={"range": "bytes=9-"})
    assert (beyond.status_code, beyond.json()["code"], beyond.headers["content-range"]) == (
        416, "range_not_satisfiable", "bytes */9"
    )  # fmt: skip
    wrong = await client.post("/files/assets/app.js")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")
    assert (await client.get("/items/1")).json() == "1"


async def test_index_answers_for_pages_when_a_single_page_application_is_configured(serve: Any, folder: Path) -> None:
    """Files as they are, the index for every page a browser asks for, problems for the rest; routes come first."""
    client: httpx.AsyncClient = await serve(shop(spa=str(folder)))
    page = {"accept": "text/html,*/*;q=0.8"}
    for path in ("/", "/settings/profile", "/orders/7"):
        answer = await client.get(path, headers=page)
        assert (answer.status_code, answer.text) == (200, "<title>app</title>")
        assert path == "/" or answer.headers["cache-control"] == "no-cache"
    assert (await client.get("/assets/app.js", headers=page)).text == "let x = 1"
    assert (await client.get("/items/1", headers=page | {"accept": "*/*"})).json() == "1"
    assert (await client.get("/health", headers=page)).json()["status"] == "healthy"
    broken = [(path, page) for path in ("/a%00", "/%ff", "/a%0d%0ab")]
    for path, headers in (("/assets/none.js", page), ("/settings", {"accept": "application/json"}), *broken):
        missing = await client.get(path, headers=headers)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert (await client.post("/settings", headers=page)).status_code == 405


async def test_websocket_of_the_application_works_when_it_is_added(serve: Any) -> None:
    """A socket goes through to Starlette's routes; one that nobody takes is refused."""
    import websockets

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    service = shop()
    service.app.router.add_websocket_route("/echo", echo)
    client: httpx.AsyncClient = await serve(service)
    url = str(client.base_url).replace("http", "ws").rstrip("/")
    async with websockets.connect(f"{url}/echo") as socket:
        await socket.send("x")
        assert await socket.recv() == "x"
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url}/nowhere")
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url}/items/1")


async def test_body_of_a_mounted_route_is_limited_when_it_is_read(serve: Any) -> None:
    """`max_body_bytes` holds for what is mounted, too, and for applications that make a 500 of every error."""

    async def size(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    service = shop(max_body_bytes=1000)
    service.app.add_route("/size", size, methods=["POST"])
    service.app.mount("/sub", Starlette(routes=[Route("/size", size, methods=["POST"])]))
    client: httpx.AsyncClient = await serve(service)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 500

    for path in ("/size", "/sub/size"):
        assert (await client.post(path, content=b"x" * 1000)).text == "1000"
        for content in (b"x" * 1001, parts()):
            answer = await client.post(path, content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "message_too_large")
