"""`asyncapi`: valid by AsyncAPI's own parser, and what it says is what the service listens to."""

from __future__ import annotations

import asyncio
import datetime
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cliffracer_cli.asyncapi import asyncapi_document
from cliffracer_cli.testing import CommandLine

from cliffracer_core import (
    CliffracerService,
    MessageContext,
    MessagePattern,
    NotFoundError,
    broadcast,
    event,
    rpc,
    validated_rpc,
)

NODE = Path(__file__).with_name("node")


class Circle(msgspec.Struct, tag=True):
    radius: float
    drawn: datetime.datetime | None = None


class Square(msgspec.Struct, tag=True):
    corners: tuple[tuple[int, int], str]
    inside: list[Square] = []


class Shapes(CliffracerService):
    name = "shapes"
    version = "1.2.0"
    description = "All shapes."

    @rpc
    async def find(self, id: int, context: MessageContext) -> Circle | Square:
        """Find a shape.

        By its number.

        Args:
            id: its number

        Returns:
            The shape.

        Raises:
            NotFoundError: there is none

        Example:
            {"id": 7} -> {"type": "Circle", "radius": 1.5}
        """
        raise NotFoundError(f"no shape {id} ({context.subject})")

    @validated_rpc(timeout=3)
    async def add(self, shape: Circle | Square, tags: list[str] = []) -> None:  # noqa: B006
        """Add a shape."""

    @rpc
    async def all(self) -> AsyncIterator[Square]:
        yield Square(((0, 1), "a"))

    @MessagePattern("shape.*")
    async def any(self, data: dict[str, Any]) -> int:
        return len(data)

    @event("order.*.done", durable=True, retries=2, queue="billing")
    async def done(self, order: Circle) -> None: ...

    @event("shape.seen")
    async def seen(self, shape: Square) -> None: ...

    @event("shape.seen", queue="second", timeout=2)
    async def seen_too(self, name: str, at: datetime.datetime) -> None: ...

    @broadcast("cache.>")
    async def clear(self, data: object) -> None: ...

    @event("a.b")
    @event("c.d", durable=True)
    async def both(self, x: int) -> None: ...


@pytest.fixture(scope="module")
def document() -> Any:
    async def make() -> Any:
        return asyncapi_document(await Shapes().wiring(), urls={"default": "nats://me:s3cret@localhost:4222"})

    return json.loads(json.dumps(asyncio.run(make())))


@pytest.fixture(scope="module")
def parser() -> Path:
    """AsyncAPI's parser; CI requires it."""
    missing = pytest.fail if os.environ.get("REQUIRE_NODE") else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node and npm are not installed")
    with (NODE / "package.json").open() as lock:  # another interpreter's run may install at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (NODE / "node_modules" / "@asyncapi" / "parser").is_dir():
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
            done = subprocess.run(command, cwd=NODE, capture_output=True, timeout=300, check=False)
            if done.returncode:
                missing(f"npm cannot install the parser: {done.stderr.decode()[-500:]}")
    return NODE / "validate.mjs"


def judged(parser: Path, document: object) -> Any:
    text = json.dumps(document).encode()
    done = subprocess.run(["node", parser], input=text, capture_output=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_document_is_valid_by_the_parser_of_asyncapi(parser: Path, document: Any) -> None:
    """No error and no warning."""
    assert judged(parser, document) == {"valid": True, "found": []}


def test_parser_finds_what_is_wrong(parser: Path, document: Any) -> None:
    """The parser's word means something: a broken document is not valid."""
    broken = json.loads(json.dumps(document))
    broken["operations"]["find"]["action"] = "answer"
    assert not judged(parser, broken)["valid"]
    broken = json.loads(json.dumps(document))
    broken["components"]["messages"]["find.arguments"]["payload"]["properties"]["id"]["type"] = "number!"
    assert not judged(parser, broken)["valid"]


def test_head_names_the_service_and_its_server_without_credentials(document: Any) -> None:
    """Title, version and text; the broker's host, never who logs in there."""
    assert document["info"] == {"title": "shapes", "version": "1.2.0", "description": "All shapes."}
    assert document["servers"] == {"default": {"host": "localhost:4222", "protocol": "nats"}}
    assert document["channels"]["find"]["servers"] == [{"$ref": "#/servers/default"}]
    assert "s3cret" not in json.dumps(document)


def test_every_subject_has_its_channel(document: Any) -> None:
    """Requests below `rpc.`, events as they are; wildcards are parameters, and the pattern is told."""
    addresses = {name: each["address"] for name, each in document["channels"].items() if each["address"]}
    assert addresses == {
        "find": "rpc.shapes.find", "add": "rpc.shapes.add", "all": "rpc.shapes.all", "any": "rpc.shape.{token1}",
        "done": "order.{token1}.done", "seen": "shape.seen", "seen_too": "shape.seen", "clear": "cache.{rest}",
        "both": "c.d", "both_2": "a.b",
    }  # fmt: skip
    assert document["channels"]["any"]["x-subject"] == "rpc.shape.*"
    assert document["channels"]["clear"]["parameters"].keys() == {"rest"}


def test_request_is_an_operation_with_a_reply(document: Any) -> None:
    """Docstring, arguments, result, errors, queue group and deadline."""
    operation = document["operations"]["find"]
    assert (operation["action"], operation["summary"]) == ("receive", "Find a shape.")
    assert operation["description"] == "By its number."
    assert operation["x-queue-group"] == "q"
    assert operation["x-timeout-s"] == 30.0
    assert operation["x-errors"] == {"NotFoundError": "there is none"}
    assert operation["reply"] == {
        "channel": {"$ref": "#/channels/find.reply"},
        "messages": [
            {"$ref": "#/channels/find.reply/messages/result"},
            {"$ref": "#/channels/find.reply/messages/error"},
        ],
    }
    messages = document["components"]["messages"]
    assert messages["find.arguments"]["payload"] == {
        "type": "object", "properties": {"id": {"type": "integer", "description": "its number"}}, "required": ["id"],
    }  # fmt: skip
    assert messages["find.arguments"]["examples"] == [{"payload": {"id": 7}}]
    assert messages["find.result"]["examples"] == [{"payload": {"type": "Circle", "radius": 1.5}}]
    assert messages["find.result"]["description"] == "The shape."
    assert "Timeout-Ms" in messages["find.arguments"]["headers"]["properties"]
    assert messages["Error"]["payload"] == {"$ref": "#/components/schemas/ErrorBody"}
    assert "Nats-Service-Error-Code" in messages["Error"]["headers"]["properties"]


def test_kinds_of_requests_are_told_apart(document: Any) -> None:
    """Strict ones, those that stream, those with a deadline of their own."""
    operations = document["operations"]
    assert [name for name, each in operations.items() if each.get("x-strict")] == ["add"]
    assert [name for name, each in operations.items() if each.get("x-streams")] == ["all"]
    assert operations["add"]["x-timeout-s"] == 3
    assert document["components"]["messages"]["all.result"]["payload"] == {"$ref": "#/components/schemas/Square"}


def test_events_say_who_shares_them_and_what_is_kept(document: Any) -> None:
    """Queue groups, durable names with their policy and dead letters, and fan-out."""
    operations = document["operations"]
    assert (operations["seen"]["x-queue-group"], operations["seen_too"]["x-queue-group"]) == ("shapes.seen", "second")
    assert operations["seen"]["bindings"] == {"nats": {"queue": "shapes.seen"}}
    assert operations["seen_too"]["x-timeout-s"] == 2
    assert {key: value for key, value in operations["done"].items() if key.startswith("x-")} == {
        "x-durable": "billing", "x-stream": "ORDER", "x-retries": 2, "x-backoff-s": 1.0, "x-max-backoff-s": 60.0,
        "x-ack-wait-s": 30.0, "x-dead-letter": "dlq.shapes.done",
    }  # fmt: skip
    assert operations["clear"]["x-fanout"] is True
    assert "x-queue-group" not in operations["clear"]
    assert not any("reply" in operations[name] for name in ("done", "seen", "clear", "both"))


def test_schemas_are_of_the_draft_that_asyncapi_takes(document: Any) -> None:
    """Positions of tuples and the tag of a union, as draft 07 and AsyncAPI write them; types are shared."""
    square = document["components"]["schemas"]["Square"]["properties"]
    assert square["corners"]["items"][1] == {"type": "string"}
    assert square["corners"]["additionalItems"] is False
    assert square["inside"]["items"] == {"$ref": "#/components/schemas/Square"}
    shape = document["components"]["messages"]["add.arguments"]["payload"]["properties"]["shape"]
    assert shape["discriminator"] == "type"
    assert "prefixItems" not in json.dumps(document)


APP = """
from cliffracer_core import CliffracerService, rpc


class Users(CliffracerService):
    name = "users"

    @rpc
    async def find(self, id: int) -> int:
        return id
"""


@pytest.mark.parametrize("disabled", ["", "http,discovery,nats"])
def test_command_needs_no_broker_and_no_other_plugin(tmp_path: Path, disabled: str) -> None:
    """The document comes from the declarations alone."""
    (tmp_path / "app.py").write_text(APP)
    environment = {"CLIFFRACER_DISABLE": disabled}
    with CommandLine("asyncapi", "app:Users", directory=tmp_path, environment=environment) as process:
        found = process.json()
    assert found["asyncapi"] == "3.0.0"
    assert list(found["operations"]) == ["find"]
    assert "servers" not in found


def test_command_writes_a_file_and_names_the_server(tmp_path: Path) -> None:
    """`--transport` is not connected to; it is what the document names."""
    (tmp_path / "app.py").write_text(APP)
    options = ("--transport", "nats://127.0.0.1:1", "--output", "asyncapi.json")
    with CommandLine("asyncapi", "app:Users", *options, directory=tmp_path) as process:
        assert process.wait() == 0, process.err
    found = json.loads((tmp_path / "asyncapi.json").read_text())
    assert found["servers"] == {"default": {"host": "127.0.0.1:1", "protocol": "nats"}}


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    """A target that names nothing is wrong usage."""
    with CommandLine("asyncapi", "nowhere:Users", directory=tmp_path) as process:
        assert process.wait() == 2
    assert "module 'nowhere' is neither in" in process.err[0]
