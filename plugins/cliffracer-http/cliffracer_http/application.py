"""One service's ASGI application: its routes in front of its Starlette application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Router

from cliffracer_core.errors import NotFoundError

from .edge import CORRELATION_HEADER, correlation_of
from .endpoint import Endpoint, respond
from .errors import MethodNotAllowed
from .handshakes import deny
from .limits import BodyLimits, Exchange, HeadersTooLarge
from .matcher import Matcher
from .problems import send_problem
from .streaming import ResponseBroken

__all__ = ["Application", "Dispatcher", "Table"]

Factory = Callable[[Any], Any]


class Application(Starlette):
    """`service.app`: a Starlette application whose errors are problem details.

    Routes of the service's handlers are found first, then what is added here: `mount`, `add_route`,
    `add_exception_handler`, `add_middleware`. Middleware wraps both; it must be pure ASGI and be there
    before the service starts.
    """


class Table(Matcher[dict[str, Endpoint]]):
    """Path to method to endpoint."""

    def put(self, method: str, path: str, endpoint: Endpoint) -> bool:
        """Add an endpoint; False where there is one."""
        methods = self.get(path)
        if methods is None:
            methods = {}
            self.add(path, methods)
        return methods.setdefault(method, endpoint) is endpoint


class Dispatcher:
    """The ASGI callable in front: the table, then Starlette's router, then an error.

    Args:
        service: its name, for errors.
        table: the routes.
        app: what the program may have added to.
        static: routes of files, asked last.
        body: limits of what the program's own routes may read.
        max_headers: a request with more is refused.
    """

    def __init__(
        self,
        service: str,
        table: Table,
        app: Application,
        static: Sequence[BaseRoute],
        body: BodyLimits,
        *,
        max_headers: int,
    ) -> None:
        self._service = service
        self._find = table.find
        self._app = app
        self._static = list(static)
        self._body = body
        self._max_headers = max_headers
        self._rest = _correlated(self._raising(app.router))
        self._files = _correlated(self._raising(Router(self._static))) if static else self._rest

    def wrap(self, factories: Sequence[Factory]) -> Any:
        """Return the whole application, with ASGI middleware around it, outermost first."""
        wrapped: Any = self
        for cls, args, kwargs in reversed(self._app.user_middleware):
            wrapped = cls(wrapped, *args, **kwargs)
        for factory in reversed(factories):
            wrapped = factory(wrapped)
        return wrapped

    def knows(self, scope: Any) -> bool:
        """Tell whether anything here answers this path, in some method."""
        return self._find(scope["path"]) is not None or self._mounted(scope) is not None

    @staticmethod
    def _raising(app: Any) -> Any:
        return ExceptionMiddleware(app, handlers={HTTPException: _raise})

    def _mounted(self, scope: Any) -> Any:
        """Return what serves a path that no handler has, None where nothing does."""
        for routes, app in ((self._app.router.routes, self._rest), (self._static, self._files)):
            if any(route.matches(scope)[0] is not Match.NONE for route in routes):
                return app
        return None

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one request or connection, as ASGI 3."""
        if len(scope["headers"]) > self._max_headers:
            return self._refuse(scope, receive, send)
        found = self._find(scope["path"])
        if found is not None:
            endpoint = found[0].get(scope["method"] if scope["type"] == "http" else "WEBSOCKET")
            if endpoint is not None:
                return endpoint(scope, receive, send, found[1])
        return self._miss(scope, receive, send, found)

    async def _refuse(self, scope: Any, receive: Any, send: Any) -> None:
        error = HeadersTooLarge(f"{len(scope['headers'])} headers; send at most {self._max_headers}")
        if scope["type"] != "http":
            await deny(scope, receive, send, error.status, str(error))
            return
        await self.fail(scope, receive, send, error, "")

    async def _miss(self, scope: Any, receive: Any, send: Any, found: Any) -> None:
        scope["app"] = self._app
        mounted = self._mounted(scope)
        if mounted is not None:
            await self._fall_through(mounted, scope, receive, send)
        elif scope["type"] != "http":
            path = repr(scope["path"][:200])
            await deny(scope, receive, send, 404, f"{path} takes no websockets" if found else f"nothing is at {path}")
        elif found is None:
            await self.fail(scope, receive, send, NotFoundError(f"nothing is at {scope['path'][:200]!r}"), "")
        else:
            await self._other_method(scope, receive, send, sorted(found[0].keys() - {"WEBSOCKET"}))

    async def _other_method(self, scope: Any, receive: Any, send: Any, allowed: list[str]) -> None:
        if not allowed:
            error: Exception = NotFoundError(f"{scope['path'][:200]!r} takes websockets only")
        elif scope["method"] == "OPTIONS":
            headers = [(b"allow", ", ".join([*allowed, "OPTIONS"]).encode("ascii"))]
            headers.append((CORRELATION_HEADER, correlation_of(scope).encode("ascii")))
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        else:
            error = MethodNotAllowed(
                f"{scope['path'][:200]!r} takes {', '.join(allowed)}", details={"allowed": allowed}
            )
        await self.fail(scope, receive, send, error, "")

    async def _fall_through(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        started = False
        exchange = Exchange(self._body, scope, receive, send)

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, exchange.receive, watched)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await self.fail(scope, receive, send, error, "")

    async def fail(self, scope: Any, receive: Any, send: Any, error: BaseException, correlation_id: str) -> None:
        """Answer for an error: by the application's own exception handler where it has one, else a problem."""
        if isinstance(error, ResponseBroken):
            raise error
        correlation_id = correlation_id or correlation_of(scope)
        handler = self._handler(error)
        if handler is not None:
            response = handler(Request(scope, receive, send), error)
            response = await response if isinstance(response, Awaitable) else response
            await respond(response, scope, receive, send, correlation_id)
            return
        where = f"{scope['method']} {scope['path']}"
        await send_problem(send, error, self._service, correlation_id, where=where, head=scope["method"] == "HEAD")

    def _handler(self, error: BaseException) -> Any:
        handlers = self._app.exception_handlers
        if not handlers:
            return None
        status = error.status_code if isinstance(error, HTTPException) else getattr(error, "status", 500)
        by_class = (handlers[each] for each in type(error).__mro__ if each in handlers)
        return handlers.get(status) or next(by_class, None)


async def _raise(request: Any, error: Exception) -> Any:
    raise error


def _correlated(app: Any) -> Any:
    """Add the correlation id to what mounted applications send."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return

        async def with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if all(name.lower() != CORRELATION_HEADER for name, _ in headers):
                    headers.append((CORRELATION_HEADER, correlation_of(scope).encode("ascii")))
                    message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, with_id)

    return call
