"""`contract`: save and diff against services that run as processes, and what counts as breaking."""

from __future__ import annotations

import datetime
import enum
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from cliffracer_cli.comparing import compare
from cliffracer_cli.contracts import Contract, Endpoint, Failure
from cliffracer_cli.testing import CommandLine

from cliffracer_core.schemas import Schemas
from cliffracer_core.testing import unique

OLD = """
from msgspec import Struct
from cliffracer_core import CliffracerService, rpc


class User(Struct):
    id: int
    email: str


class Users(CliffracerService):
    name = "NAME"
    version = "VERSION"

    @rpc
    async def find(self, id: int) -> User: ...

    @rpc
    async def old(self) -> None: ...
"""
COMPATIBLE = OLD.replace("id: int) -> User", "id: int | str, deep: bool = False) -> User").replace(
    "    email: str\n", "    email: str\n    name: str\n"
)
BREAKING = OLD.replace("id: int) -> User", "id: int, tenant: str) -> User").replace("    email: str\n", "")
BREAKING = BREAKING.partition("    @rpc\n    async def old")[0]


def cli(folder: Path, url: str, *arguments: str) -> CommandLine:
    with CommandLine(*arguments, "--transport", url, directory=folder) as process:
        process.wait()
    return process


def running(folder: Path, url: str, source: str) -> CommandLine:
    folder.mkdir()
    (folder / "app.py").write_text(source)
    return CommandLine("run", "app", "--transport", url, directory=folder)


def test_contract_is_saved_and_compared_with_what_runs(tmp_path: Path, nats_url: str) -> None:
    """The same service has no changes; compatible ones are listed with exit code 0, breaking ones give 1."""
    name = unique()
    old, compatible, breaking = (each.replace("NAME", name) for each in (OLD, COMPATIBLE, BREAKING))
    with running(tmp_path / "old", nats_url, old.replace("VERSION", "1.0.0")) as service:
        service.wait_for("is ready")
        saved = cli(tmp_path, nats_url, "contract", "save", name, "c.json", "--json").json()
        assert saved == {"service": name, "version": "1.0.0", "endpoints": 2}
        text = (tmp_path / "c.json").read_bytes()
        assert cli(tmp_path, nats_url, "contract", "save", name, "c.json").wait() == 0
        assert (tmp_path / "c.json").read_bytes() == text
        process = cli(tmp_path, nats_url, "contract", "diff", name, "c.json")
        assert (process.wait(), process.out, process.err) == (0, ["no changes"], [])
    with running(tmp_path / "compatible", nats_url, compatible.replace("VERSION", "1.1.0")) as service:
        service.wait_for("is ready")
        process = cli(tmp_path, nats_url, "contract", "diff", name, "c.json")
        assert process.wait() == 0
        assert process.out == [
            "compatible  find: argument deep: is new",
            "compatible  find: argument id: may now be string",
            "compatible  find: result name: is new",
        ]
    with running(tmp_path / "breaking", nats_url, breaking.replace("VERSION", "2.0.0")) as service:
        service.wait_for("is ready")
        process = cli(tmp_path, nats_url, "contract", "diff", name, "c.json", "--json")
        assert process.wait() == 1
        found = json.loads(process.out[0])
        assert found["breaking"] == 3
        assert [(each["endpoint"], each["where"], each["what"]) for each in found["changes"]] == [
            ("find", "argument tenant", "is new and required"),
            ("find", "result email", "is gone"),
            ("old", "", f"subject 'rpc.{name}.old' is gone"),
        ]


def test_instances_that_differ_have_no_contract(tmp_path: Path, nats_url: str) -> None:
    """In the middle of a rollout nothing is saved, for it could be either; the error names the versions."""
    name = unique()
    old, new = (
        each.replace("NAME", name).replace("VERSION", number) for each, number in ((OLD, "1.0.0"), (BREAKING, "2.0.0"))
    )
    with running(tmp_path / "old", nats_url, old) as one, running(tmp_path / "new", nats_url, new) as other:
        one.wait_for("is ready")
        other.wait_for("is ready")
        process = cli(tmp_path, nats_url, "contract", "save", name, "c.json")
    assert process.wait() == 1
    assert "2 instances with different contracts (versions 1.0.0, 2.0.0)" in process.err[0]
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"service": 1}', "\udcff"])
def test_file_that_holds_no_contract_is_wrong_usage(tmp_path: Path, text: str) -> None:
    """The error comes before anything is connected to, and says how to write one."""
    (tmp_path / "c.json").write_bytes(text.encode(errors="surrogateescape"))
    for file in ("c.json", "missing.json"):
        process = cli(tmp_path, "nats://localhost:1", "contract", "diff", "users", file)
        assert process.wait() == 2
        assert f"file {file!r} holds no contract" in process.err[0]
        assert "; write one with 'cliffracer contract save'" in process.err[0]


class Address(msgspec.Struct):
    street: str


class Wider(msgspec.Struct):
    street: str
    city: str | None = None


class Stricter(msgspec.Struct):
    street: str
    city: str


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


class TextNode(msgspec.Struct):
    value: str
    next: TextNode | None = None


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class Fish(msgspec.Struct, tag=True):
    name: str


class Place(msgspec.Struct):
    street: str


class F(msgspec.Struct):
    first_name: str


class G(msgspec.Struct, rename="camel"):
    first_name: str


Mood = enum.Enum("Mood", {"GOOD": "good"})
Moods = enum.Enum("Moods", {"GOOD": "good", "BAD": "bad"})
Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
FromOne = Annotated[int, msgspec.Meta(ge=1)]
Short = Annotated[str, msgspec.Meta(max_length=5)]
Pair = tuple[int, str]

# old type, new type, breaks as an argument, breaks as a result
CASES: list[tuple[Any, Any, bool, bool]] = [
    (int, int, False, False),
    (int, str, True, True),
    (int, float, False, True),
    (float, int, True, False),
    (int, int | None, False, True),
    (int | None, int, True, False),
    (int | str, int, True, False),
    (int, Any, False, True),
    (Any, int, True, False),
    (list[int], list[str], True, True),
    (dict[str, int], dict[str, float], False, True),
    (Pair, tuple[int, int], True, True),
    (Pair, tuple[int, str, int], True, True),
    (Literal["a", "b"], Literal["a"], True, False),
    (Literal["a"], Literal["a", "b"], False, True),
    (Literal["a", "b"], str, False, True),
    (Literal[1, 2], int, False, True),
    (str, Short, True, False),
    (Short, str, False, True),
    (Natural, Positive, True, False),
    (Positive, Natural, False, True),
    (Positive, FromOne, False, False),
    (Address, Wider, False, False),
    (Address, Place, False, False),
    (dict[str, list[Address | None]], dict[str, list[Address]], True, False),
    (Mood, Moods, False, True),
    (str, datetime.datetime, True, False),
    (F, G, True, True),
    (Address, Stricter, True, False),
    (Stricter, Address, False, True),
    (Wider, Address, False, True),
    (list[Address], list[Stricter], True, False),
    (Address | None, Stricter | None, True, False),
    (Node, TextNode, True, True),
    (Node, Node, False, False),
    (Cat | Dog, Cat | Dog | Fish, False, True),
    (Cat | Dog, Cat, True, False),
]


def schema_of(type: Any) -> dict[str, Any]:
    """Return the schema that `cliffracer-discovery` announces."""
    schemas = Schemas("#/$defs/{name}")
    schema = schemas.add(type)
    return {"$defs": schemas.fill(), **schema}


def contract(request: Any, response: Any) -> Contract:
    arguments = schema_of(msgspec.defstruct("Arguments", [("x", request)], kw_only=True))
    endpoint = Endpoint(name="e", subject="rpc.s.e", request=arguments, response=schema_of(response))
    return msgspec.json.decode(msgspec.json.encode(Contract(service="s", endpoints=[endpoint])), type=Contract)


@pytest.mark.parametrize(("old", "new", "as_argument", "as_result"), CASES)
def test_change_is_breaking_where_old_callers_fail(old: Any, new: Any, as_argument: bool, as_result: bool) -> None:
    """An argument may take more, a result may be less; whatever else is different breaks, on its own side."""
    of_argument = compare(contract(old, int), contract(new, int))
    assert any(each.breaking for each in of_argument) == as_argument, of_argument
    of_result = compare(contract(int, old), contract(int, new))
    assert any(each.breaking for each in of_result) == as_result, of_result
    assert all(each.where.startswith("argument x") for each in of_argument)
    assert all(each.where.startswith("result") for each in of_result)


def test_stream_and_errors_are_part_of_a_contract() -> None:
    """A reply that becomes a stream breaks its callers, and so does the reverse; errors are listed."""
    old, streamed = contract(int, int), contract(int, int)
    streamed.endpoints[0].stream = True
    streamed.endpoints[0].errors = [Failure(type="away")]
    there = {(each.what, each.breaking) for each in compare(old, streamed)}
    back = {(each.what, each.breaking) for each in compare(streamed, old)}
    assert there == {("streams its reply now", True), ("may now raise 'away'", False)}
    assert back == {("streams its reply no more", True), ("no longer raises 'away'", False)}


def test_argument_that_is_gone_breaks_where_unknown_ones_are_refused() -> None:
    """A service that ignores unknown arguments still takes the calls; one that refuses them does not."""
    old = contract(int, int)
    for strict in (False, True):
        empty = msgspec.defstruct("Arguments", [], forbid_unknown_fields=strict)
        new = Contract(
            service="s",
            endpoints=[
                Endpoint(name="e", subject="rpc.s.e", request=msgspec.json.schema(empty), response={"type": "integer"})
            ],
        )
        (change,) = compare(old, new)
        assert (change.breaking, change.what) == (strict, "is refused" if strict else "is no longer read")
