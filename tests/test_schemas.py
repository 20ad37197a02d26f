"""JSON Schemas of many types."""

from __future__ import annotations

import datetime
import decimal
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

from cliffracer_core import ConfigurationError
from cliffracer_core.schemas import Schemas, encoded


class Stamp(msgspec.Struct):
    at: datetime.datetime
    cost: decimal.Decimal | None = None
    until: list[datetime.time] = []
    named: dict[str, datetime.datetime] = {}
    next: Stamp | None = None


class Card(msgspec.Struct, tag=True, array_like=True):
    at: datetime.datetime


class Cash(msgspec.Struct, tag=True):
    at: datetime.datetime


class Debt(msgspec.Struct, tag=True):
    sum: decimal.Decimal


class Pair(NamedTuple):
    one: datetime.datetime
    two: int


class Odd:
    """A type that msgspec knows nothing of."""


def described(*types: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    schemas = Schemas()
    found = [schemas.add(each) for each in types]
    return found, schemas.fill()


def test_types_that_are_shared_are_described_once() -> None:
    """Two uses of a Struct refer to one schema."""
    (one, many), components = described(Stamp, list[Stamp])
    assert one == {"$ref": "#/components/schemas/Stamp"}
    assert many == {"type": "array", "items": one}
    assert list(components) == ["Stamp"]


def test_moments_and_decimals_say_so_wherever_they_stand() -> None:
    """Fields, lists, dictionaries, tuples and unions; a Struct that holds itself too."""
    (plain, pair, union, _), components = described(
        Annotated[datetime.datetime, msgspec.Meta(description="when")], tuple[Pair, int], Cash | Debt | None, Card
    )
    assert plain == {"type": "string", "description": "when", "format": "date-time"}
    _, stamps = described(Stamp)
    properties = stamps["Stamp"]["properties"]
    assert properties["at"]["format"] == "date-time"
    assert "pattern" in properties["cost"]["anyOf"][0]
    assert properties["until"]["items"]["format"] == "time"
    assert properties["named"]["additionalProperties"]["format"] == "date-time"
    assert components["Pair"]["prefixItems"] == [{"type": "string", "format": "date-time"}, {"type": "integer"}]
    assert components["Card"]["prefixItems"][-1]["format"] == "date-time"
    assert components["Cash"]["properties"]["at"]["format"] == "date-time"
    assert "pattern" in components["Debt"]["properties"]["sum"]
    assert pair["prefixItems"][0] == {"$ref": "#/components/schemas/Pair"}
    assert len(union["anyOf"]) == 2


def test_type_without_a_schema_says_nothing() -> None:
    """A custom type is known by its name; the others are described all the same."""
    (odd, number), _ = described(dict[str, Odd], int)
    assert odd == {"type": "object", "additionalProperties": {"title": "Odd"}}
    assert number == {"type": "integer"}


def test_two_types_of_one_name_are_refused_by_name() -> None:
    """Two Structs with the same module and name cannot both be described."""
    made = [msgspec.defstruct("Twin", [("x", int)]) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="Twin.* rename one"):
        described(*made)


def test_struct_of_one_handler_is_described_in_place() -> None:
    """Its fields have their defaults and what the docstring says of them."""
    schemas = Schemas()
    struct = msgspec.defstruct("A", [("a", int), ("b", list[int], msgspec.field(default_factory=lambda: [1]))])
    found = schemas.object(struct, {"a": "first"})
    assert schemas.fill() == {}
    assert found == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "first"},
            "b": {"type": "array", "items": {"type": "integer"}, "default": [1]},
        },
        "required": ["a"],
    }


def test_value_without_an_encoding_is_left_out() -> None:
    """A default that has no JSON is not shown."""
    assert encoded(Odd()) is msgspec.UNSET
    assert encoded({datetime.date(2026, 1, 2): decimal.Decimal("1.5")}) == {"2026-01-02": "1.5"}
