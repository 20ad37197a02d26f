"""What schemathesis finds where it throws requests, made from the generated document, at an example service."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import hypothesis
import msgspec
import pytest
import schemathesis.openapi
from cliffracer_http import (
    Body,
    Cookie,
    Event,
    File,
    FileResponse,
    Form,
    Header,
    PlainTextResponse,
    Query,
    RedirectResponse,
    Reply,
    Request,
    Response,
    UploadFile,
    delete,
    etag_of,
    get,
    head,
    options,
    patch,
    post,
    put,
)
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from cliffracer_core import CliffracerService, ConflictError, MessageContext, NotFoundError, ServiceConfig, rpc

EXAMPLES = 30
LENIENT = ("/form", "/upload", "/there")
"""Where more is taken than the document says: 1 in a form is the text "1", and a moment may be seconds since 1970."""


class Genre(enum.Enum):
    FACT = "fact"
    FICTION = "fiction"


class Author(msgspec.Struct):
    """Who wrote a book."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    born: datetime.date | None = None


class Book(msgspec.Struct):
    """A book."""

    title: Annotated[str, msgspec.Meta(min_length=1)]
    author: Author
    genre: Genre = Genre.FACT
    pages: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    price: decimal.Decimal = decimal.Decimal("1.50")
    tags: list[Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]] = []
    ids: dict[str, uuid.UUID] = {}
    size: tuple[int, int] | None = None


class Circle(msgspec.Struct, tag=True):
    radius: Annotated[float, msgspec.Meta(ge=0)]


class Square(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    side: float


class Filter(msgspec.Struct):
    genre: Genre | None = None
    words: list[str] = []
    limit: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10


class Shop(CliffracerService):
    """A service with every kind of parameter and result."""

    name = "shop"

    @rpc
    @post("/books", status_code=201)
    async def add(self, book: Book) -> Book:
        """Add a book.

        Raises:
            ConflictError: there is one of this title.
        """
        if book.title == "Emma":
            raise ConflictError("there is one")
        return book

    @get("/books")
    async def books(self, filter: Annotated[Filter, Query()], full: bool = False) -> list[str]:
        return [*filter.words, str(full)]

    @get("/books/{id}")
    async def book(self, id: int, user_agent: Annotated[str, Header()] = "") -> Book:
        """Return a book.

        Raises:
            NotFoundError: there is none.
        """
        if id != 1:
            raise NotFoundError(f"no book {id}")
        return Book("Emma", Author("Jane Austen", datetime.date(1775, 12, 16)))

    @put("/books/{id}")
    async def replace(self, id: uuid.UUID, title: str, pages: int = 1, note: str | None = None) -> dict[str, Any]:
        return {"id": id, "title": title, "pages": pages, "note": note}

    @patch("/books/{id}")
    async def change(self, id: int, change: dict[str, int | None]) -> dict[str, int | None]:
        return change

    @delete("/books/{id}", status_code=204)
    async def remove(self, id: int) -> None: ...

    @post("/area")
    async def area(self, shape: Circle | Square) -> float:
        return shape.radius if isinstance(shape, Circle) else shape.side

    @post("/words")
    async def words(self, words: list[Literal["a", "b"]]) -> set[str]:
        return set(words)

    @get("/session")
    async def session(
        self, session: Annotated[str | None, Cookie()] = None, level: Annotated[int, Header("X-Level")] = 0
    ) -> list[Any]:
        return [session, level]

    @post("/form")
    async def form(self, name: Annotated[str, Form()], ages: Annotated[tuple[int, ...], Form()] = ()) -> list[Any]:
        return [name, ages]

    @post("/upload")
    async def upload(
        self, file: UploadFile, text: Annotated[bytes, File()], note: Annotated[str, Form()] = ""
    ) -> list[Any]:
        return [len(await file.read()), len(text), note]

    @post("/raw")
    async def raw(self, content: Annotated[bytes, Body()]) -> int:
        return len(content)

    @get("/page")
    async def page(self) -> Reply:
        return Reply({"title": "hello"}, etag=etag_of("hello"))

    @get("/text")
    async def text(self) -> PlainTextResponse:
        return PlainTextResponse("hello")

    @get("/name", media_type="text/plain")
    async def shop_name(self) -> str:
        return "shop"

    @get("/old")
    async def old(self) -> RedirectResponse:
        return RedirectResponse("/page")

    @get("/any")
    async def any(self, request: Request, context: MessageContext) -> Response | int:
        return 1

    @get("/source/{path:path}")
    async def source(self, path: str) -> FileResponse:
        return FileResponse(__file__)

    @get("/numbers")
    async def numbers(self, until: Annotated[int, msgspec.Meta(ge=0, le=5)] = 2) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    @get("/news")
    async def news(self) -> AsyncIterator[Event]:
        yield Event(data={"number": 1})

    @head("/there")
    async def there(self) -> None: ...

    @options("/there")
    async def asked(self, when: datetime.datetime | None = None, took: float = 1.0) -> float:
        return took

    @get("/quiet", include_in_schema=False)
    async def quiet(self) -> None: ...


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the shop, served by a loop of its own: schemathesis blocks."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        service: Any = Shop(ServiceConfig("shop", http={"port": 0, "server": "uvicorn"}))
        async with service:
            found["url"] = service.http.url
            started.set()
            await found["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert started.wait(20)
    try:
        yield found["url"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(20)


@pytest.fixture(scope="module")
def document(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json", wait_for_schema=5)


def has_whole_float(value: object) -> bool:
    """Tell whether JSON holds such as 1.0, which JSON Schema takes for a whole number, and msgspec does not."""
    if isinstance(value, float):
        return value.is_integer()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(has_whole_float, inner))


def operations() -> list[str]:
    shop: Any = Shop(ServiceConfig("shop"))
    paths = asyncio.run(shop.openapi())["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", operations())
def test_service_keeps_to_its_document(document: Any, name: str, mode: GenerationMode) -> None:
    """What fits the document is answered as it says, what does not with a 4xx; nothing with a 5xx."""
    method, path = name.split()

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=document[path][method].as_strategy(generation_mode=mode))
    def requests(case: Any) -> None:
        hypothesis.assume(not has_whole_float(case.body))
        case.call_and_validate(excluded_checks=excluded)

    excluded = [negative_data_rejection] if path in LENIENT else []
    try:
        requests()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing can be wrong with it
