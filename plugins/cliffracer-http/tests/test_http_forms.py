"""Forms and uploads: fields, files, sizes, and what is broken."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from cliffracer_http import File, Form, UploadFile, Uploads, post
from starlette.datastructures import UploadFile as StarletteUpload

from cliffracer_core import CliffracerService, ServiceConfig, ValidationError, rpc
from cliffracer_core.testing import unique

FIELD = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nv\r\n'
MANY = FIELD * 1100 + b"--x--"


class Login(msgspec.Struct):
    user: str
    age: int = 0


class Forms(CliffracerService):
    seen: list[UploadFile] = []

    @post("/login")
    async def login(self, user: Annotated[str, Form()], age: Annotated[int, Form()] = 7) -> list[object]:
        return [user, age]

    @post("/whole")
    async def whole(self, login: Annotated[Login, Form()]) -> Login:
        return login

    @post("/upload", max_body_bytes=20_000_000)
    async def upload(
        self, avatar: UploadFile, title: Annotated[str, Form()] = "", other: UploadFile | None = None
    ) -> list[object]:
        self.seen.append(avatar)
        on_disk = bool(getattr(avatar.file, "_rolled", True))
        content = await avatar.read()
        return [avatar.filename, avatar.content_type, len(content), on_disk, title, other and other.filename]

    @post("/several")
    async def several(self, files: Uploads, note: Annotated[bytes, File()] = b"none") -> list[object]:
        return [[each.filename for each in files], note.decode()]

    @rpc
    @post("/both")
    async def both(self, avatar: UploadFile) -> str:
        return str(avatar.filename)


@pytest.fixture
async def client(serve: Any) -> httpx.AsyncClient:
    Forms.seen.clear()
    made: httpx.AsyncClient = await serve(Forms)
    return made


async def test_fields_are_read_when_a_form_comes_in_either_encoding(client: httpx.AsyncClient) -> None:
    """urlencoded and multipart, converted to the types, one by one or as a Struct."""
    assert (await client.post("/login", data={"user": "Ada & Bo", "age": "36"})).json() == ["Ada & Bo", 36]
    assert (await client.post("/login", files={"user": (None, "Ada")})).json() == ["Ada", 7]
    assert (await client.post("/whole", data={"user": "ü", "age": "3"})).json() == {"user": "ü", "age": 3}


async def test_file_is_given_when_it_is_uploaded(client: httpx.AsyncClient) -> None:
    """Name, type and content; an optional one may be missing; several under one name; bytes in memory."""
    files = {"avatar": ("a.png", b"abc", "image/png")}
    assert (await client.post("/upload", files=files, data={"title": "t"})).json() == [
        "a.png", "image/png", 3, False, "t", None,
    ]  # fmt: skip
    several = [("files", ("a", b"1")), ("files", ("b", b"2")), ("note", ("c", b"hi"))]
    assert (await client.post("/several", files=several)).json() == [["a", "b"], "hi"]


async def test_file_is_on_disk_when_it_is_large(client: httpx.AsyncClient) -> None:
    """Past `upload_memory_bytes` a file is on disk; it is closed when the request is over."""
    answer = await client.post("/upload", files={"avatar": ("big", b"x" * 3_000_000)})
    assert answer.json()[2:4] == [3_000_000, True]
    assert len(Forms.seen) == 1
    async with asyncio.timeout(10):
        while not Forms.seen[0].file.closed:
            await asyncio.sleep(0.01)


async def test_upload_is_starlettes_when_a_handler_asks_for_it() -> None:
    """`UploadFile` of this package and Starlette's are one class."""
    assert UploadFile is StarletteUpload


@pytest.mark.parametrize(
    ("path", "options", "parameters"),
    [
        ("/login", {"data": {"age": "x"}}, ["user", "age"]),
        ("/login", {"data": {"user": ["a", "b"]}}, ["user"]),
        ("/whole", {"data": {"age": "x", "user": "a"}}, ["age"]),
        ("/upload", {"files": {"other": ("a", b"1")}}, ["avatar"]),
        ("/upload", {"files": [("avatar", ("a", b"1")), ("avatar", ("b", b"1"))]}, ["avatar"]),
        ("/upload", {"files": {"avatar": (None, "no file")}}, ["avatar"]),
    ],
)
async def test_every_wrong_field_is_listed_when_a_form_is_refused(
    client: httpx.AsyncClient, path: str, options: dict[str, Any], parameters: list[str]
) -> None:
    """Missing, given twice, of the wrong type: by name, all at once."""
    answer = await client.post(path, **options)
    assert answer.status_code == 400
    assert [(each["in"], each["parameter"]) for each in answer.json()["errors"]] == [
        ("form", name) for name in parameters
    ]


@pytest.mark.parametrize(
    ("path", "content_type", "content", "status"),
    [
        ("/login", "application/x-www-form-urlencoded", b"user=%ff", 400),
        ("/login", "application/x-www-form-urlencoded", b"user=\xff", 400),
        ("/login", "application/json", b"{}", 415),
        ("/login", "", b"user=a", 415),
        ("/upload", "application/x-www-form-urlencoded", b"avatar=x", 415),
        ("/upload", "multipart/form-data", b"x", 400),
        ("/upload", "multipart/form-data; boundary=x", b"no boundary here", 400),
        ("/upload", "multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--", 400),
        ("/upload", "multipart/form-data; boundary=x", b"--x\r\nbroken header\r\n\r\n\r\n--x--", 400),
        ("/several", "multipart/form-data; boundary=x", MANY, 400),
    ],
)  # fmt: skip
async def test_broken_form_is_refused_when_it_is_sent(
    client: httpx.AsyncClient, path: str, content_type: str, content: bytes, status: int
) -> None:
    """Broken encodings and boundaries, other content types, too many fields: a 4xx with a reason."""
    answer = await client.post(path, content=content, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


async def test_upload_is_refused_when_it_is_too_large(client: httpx.AsyncClient) -> None:
    """413 past the limit of the route, while it comes in."""
    answer = await client.post("/both", files={"avatar": ("a", b"x" * 1_100_000)})
    assert (answer.status_code, answer.json()["code"]) == (413, "message_too_large")


async def test_upload_is_refused_when_it_is_called_by_rpc() -> None:
    """A handler that takes a file has none over RPC, and says so."""
    async with Forms(ServiceConfig(unique(), http_port=0)) as service:
        with pytest.raises(ValidationError, match="takes an uploaded file; call it by HTTP"):
            await service.rpc_call(service.name, "both")
