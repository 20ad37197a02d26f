"""`client`: what it writes from a live service passes type checker and linter, and calls that service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cliffracer_cli.clientmodule import client_module
from cliffracer_cli.contracts import Contract, Endpoint, Failure
from cliffracer_cli.testing import CommandLine, clean_environment

from cliffracer_core.testing import unique

APP = '''
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from cliffracer_core import CliffracerService, MessagePattern, NotFoundError, ServiceError, rpc


class Away(ServiceError, code="NAME_away", status=409, retryable=True):
    """Nobody is at home."""


class Role(enum.Enum):
    """What one may do."""

    ADMIN = "admin"
    GUEST = "a guest"


class Cat(Struct, tag=True):
    name: str


class Dog(Struct, tag=True):
    age: int = 3


class Address(Struct, rename="camel"):
    """Where somebody lives."""

    street_name: str
    class_: str | None = field(default=None, name="class")


class User(Struct):
    """Somebody.

    With a second "paragraph\\\\".
    """

    id: uuid.UUID
    role: Role
    made: Annotated[datetime.datetime, Meta(tz=True)]
    address: Address | None = None
    friends: list["User"] = []
    pet: Cat | Dog | None = None
    extra: dict[str, int] = field(default_factory=lambda: {"a": 1})


class Users(CliffracerService):
    """People and their pets."""

    name = "NAME"
    version = "1.2.3"

    @rpc
    async def create(self, id: uuid.UUID, made: Annotated[datetime.datetime, Meta(tz=True)], role: Role = Role.GUEST,
                     address: Address | None = None, pet: Cat | Dog | None = None, tags: list[str] = [],
                     size: Literal["s", "l"] = "s", result: int = 7) -> User:
        """Make a user.

        Args:
            id: theirs.
        """
        assert (tags, size, result) == (["x"], "l", 7)
        return User(id, role, made, address, [User(id, role, made)], pet)

    @rpc
    async def find(self, id: int) -> User | None:
        """Find a user.

        Raises:
            NotFoundError: there is none.
            Away: there is one, elsewhere.
        """
        if id == 8:
            raise NotFoundError("no user 8")
        if id == 9:
            raise Away("at sea", details={"until": "May"})
        return None

    @rpc
    async def price(self, at: datetime.datetime, days: datetime.timedelta) -> decimal.Decimal:
        return decimal.Decimal("1.10") * days.days * at.year

    @rpc
    async def history(self, id: uuid.UUID, items: int) -> AsyncIterator[User]:
        """Stream what became of a user.

        Raises:
            Away: the record ends here.
        """
        for _ in range(items):
            yield User(id, Role.ADMIN, datetime.datetime.now(datetime.UTC))
        raise Away("no more")

    @MessagePattern("NAME.of.time")
    async def ticks(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @rpc
    async def nothing(self) -> None: ...

    @rpc
    async def anything(self, what: Any = None) -> Any:
        return what

    @rpc
    async def pair(self) -> tuple[int, str]:
        return 1, "a"

    @MessagePattern("NAME.address.check")
    async def check(self, address: Address) -> bool:
        return address.class_ == "a"

    @MessagePattern("NAME.sum")
    async def sum(self, numbers: list[int]) -> int:
        return sum(numbers)

    @rpc
    async def list(self, limit: int = 10) -> list[User]:
        return []
'''

USE = """
import asyncio
import datetime
import decimal
import sys
import uuid

from cliffracer_core import ClientProxy, NotFoundError, RPCError
from made import Address, Away, Cat, {client}, Dog, Role, User


async def main() -> None:
    async with ClientProxy(sys.argv[1]) as proxy:
        users = {client}(proxy.caller, timeout=5)
        id, made = uuid.uuid4(), datetime.datetime.now(datetime.UTC)
        user: User = await users.create(
            id=id, made=made, address=Address(street_name="x", class_="a"), pet=Cat(name="Tom"), tags=["x"], size="l"
        )
        assert (user.id, user.made, user.role, user.pet) == (id, made, Role.A_GUEST, Cat(name="Tom"))
        assert user.friends[0].pet is None and user.extra == {{"a": 1}}
        assert user.address is not None and user.address.street_name == "x"
        assert await users.list_() == []
        assert await users.find(id=1) is None
        await users.nothing()
        assert await users.anything(what=[1]) == [1]
        assert await users.pair() == (1, "a")
        assert await users.check(street_name="x", class_="a") is True
        assert await users.sum([1, 2]) == 3
        print(Dog())
        price: decimal.Decimal = await users.price(
            at=datetime.datetime(2024, 1, 1), days=datetime.timedelta(days=2)
        )
        assert price == decimal.Decimal("4452.80")
        numbers: list[User] = []
        try:
            async for each in users.history(id=id, items=2):
                numbers.append(each)
        except Away as away:
            print(len(numbers), away, away.retryable, away.status)
        assert [number async for number in users.ticks()] == [0, 1, 2]
        try:
            await users.find(id=9)
        except Away as away:
            assert isinstance(away, RPCError) and isinstance(away.__cause__, RPCError)
            print(away, away.details, away.service == sys.argv[2])
        try:
            await users.find(id=8)
        except NotFoundError as error:
            print(error)


asyncio.run(main())
"""
RULES = "E4,E7,E9,F,W,I,N,UP,B,C4,SIM,PIE,RET,D"
UNWANTED = "N818,D417,D107,D203,D205,D212,D213,D400,D401,D407,D413,D415,RET505"


def check(*command: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + "\n" + (folder / "made.py").read_text()


def check_source(source: str, folder: Path) -> None:
    """Check with mypy, and with ruff's default rules and many more."""
    (folder / "made.py").write_text(source)
    options = ["--isolated", "--no-cache", "--target-version", "py311", "--line-length", "120"]
    check("ruff", "check", *options, "made.py", folder=folder)
    check("ruff", "check", *options, "--select", RULES, "--ignore", UNWANTED, "made.py", folder=folder)
    check("mypy", "--strict", "--cache-dir", str(folder / ".mypy"), ".", folder=folder)


@pytest.fixture
def name(tmp_path: Path, nats_url: str) -> Iterator[str]:
    """The name of a service that runs."""
    name = unique()
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "app.py").write_text(APP.replace("NAME", name))
    with CommandLine("run", "app", "--transport", nats_url, directory=folder) as service:
        service.wait_for("is ready")
        yield name
        assert service.stop() == 0


def written(name: str, url: str, folder: Path) -> str:
    with CommandLine("client", name, "--transport", url, directory=folder) as process:
        assert process.wait() == 0, process.err
    return "\n".join(process.out) + "\n"


def test_client_of_a_live_service_is_typed_and_works(name: str, tmp_path: Path, nats_url: str) -> None:
    """It passes mypy --strict and ruff, sends and returns typed values, and raises the service's errors."""
    folder = tmp_path / "use"
    folder.mkdir()
    source = written(name, nats_url, folder)
    assert written(name, nats_url, folder) == source
    (folder / "use.py").write_text(
        USE.format(client=f"{name[0].upper()}{name[1:]}Client".replace("-", "").replace("_", ""))
    )
    check_source(source, folder)
    check("ruff", "format", "--isolated", "--no-cache", "--line-length", "120", "--check", "made.py", folder=folder)
    command = [sys.executable, "use.py", nats_url, name]
    done = subprocess.run(command, cwd=folder, env=clean_environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, [
        "Dog(age=3)", "2 no more True 409", f"at sea {{'until': 'May', 'type': '{name}_away'}} True", "no user 8",
    ]), done.stderr  # fmt: skip


def test_client_is_refused_when_nobody_answers(tmp_path: Path, nats_url: str) -> None:
    """No service, no client: nothing on stdout, and the exit code of nobody there."""
    with CommandLine("client", "nobody", "--transport", nats_url, "--timeout", "0.1", directory=tmp_path) as process:
        assert process.wait() == 4
    assert process.out == []
    assert process.err[0].startswith("error: service 'nobody' did not answer within 0.1 s; start it with")


EVIL = '"""\nimport os; os.abort()\n\\'


def test_texts_stay_texts_and_names_stay_names_when_a_service_is_hostile(tmp_path: Path) -> None:
    """Whatever a service calls things and says of them, nothing of it runs, and what is written can be imported."""
    thing = {"type": "object", "title": EVIL, "description": EVIL, "properties": {}, "required": ["class", "9"]}
    properties: dict[str, object] = {
        key: {"type": "string", "default": EVIL}
        for key in (
            "class", "9", "first-name", "first_name", "self", "list", "datetime", EVIL, "", "__init__", "é",
            "error", "item", "items", "result", "raise_as", "contextlib",
        )
    }  # fmt: skip
    properties |= {"next": {"$ref": "#/$defs/T"}, "kind": {"enum": [EVIL, "a", "A"]}, "date": {"format": "date"}}
    schema = {"$ref": "#/$defs/T", "$defs": {"T": {**thing, "properties": properties}}}
    names = ["list", "class", EVIL, "a.b", "", "User", "user", "_caller", "9"]
    errors = [Failure(type=each, name=each, doc=EVIL, status=7) for each in (EVIL, "User", "T", "9-xClient", "", "no")]
    endpoints = [
        Endpoint(
            name=name, subject=f"rpc.{number}", doc=EVIL, request=schema, response=schema, stream=number % 2 == 0,
            errors=errors,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    circle = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    endpoints.append(Endpoint(name="circle", subject="rpc.circle", request=circle, response=circle))
    source = client_module(Contract(service="9-x", version=EVIL, description=EVIL, endpoints=endpoints))
    check_source(source, tmp_path)
    done = subprocess.run([sys.executable, "-c", "import made"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_types_that_msgspec_cannot_tell_apart_are_any(tmp_path: Path) -> None:
    """A union that could not be decoded does not stop the client; types of one name and two shapes get two names."""
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    plain: dict[str, object] = {
        "title": "User",
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "required": ["id"],
    }
    other: dict[str, object] = {"title": "User", "type": "object", "properties": {"id": text}, "required": ["id"]}
    results: list[dict[str, object]] = [
        {"anyOf": [text, moment]},
        {"anyOf": [plain, other]},
        {"anyOf": [plain, {"type": "object"}]},
        {"type": ["string", "null"]},
        plain,
        other,
    ]
    endpoints = [
        Endpoint(name=f"get{number}", subject=f"rpc.{number}", response=each) for number, each in enumerate(results)
    ]
    source = client_module(Contract(service="s", endpoints=endpoints))
    check_source(source, tmp_path)
    shown = [line.rpartition(" -> ")[2] for line in source.splitlines() if "async def" in line]
    assert shown == ["Any:", "Any:", "Any:", "str | None:", "User:", "User2:"]
