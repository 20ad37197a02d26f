"""Docstrings, taken apart."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core.docstrings import Docstring, Example, parse_docstring


def sample() -> None:
    """Make a user, and
    say so.

    Text that matters.

    - a list: with a colon

    Args:
        name: what they are called,
            over two lines
        email (str): where to write: here
        *tags, more: both

    Returns:
        The user,
        made.

    More text.

    Raises:
        ConflictError: there is one.

    Example:
        {"name": "Ada"} -> {"id": 7,
            "name": "Ada"}
        -> null
        {"name": "Bo"}
    """


def test_each_section_is_found() -> None:
    """Summary, text, arguments, result, errors and examples; text after a section is text again."""
    found = parse_docstring(inspect.getdoc(sample) or "")
    assert found.summary == "Make a user, and say so."
    assert found.description == "Text that matters.\n\n- a list: with a colon\n\nMore text."
    assert found.arguments == {
        "name": "what they are called, over two lines", "email": "where to write: here", "tags": "both", "more": "both",
    }  # fmt: skip
    assert found.returns == "The user, made."
    assert found.raises == {"ConflictError": "there is one."}
    assert found.examples == (
        Example(arguments={"name": "Ada"}, result={"id": 7, "name": "Ada"}),
        Example(result=None),
        Example(arguments={"name": "Bo"}),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Docstring()),
        ("One line.", Docstring(summary="One line.")),
        ("Args:\n    a: b", Docstring(arguments={"a": "b"})),
        ("S.\n\nNote:\n    mind this", Docstring(summary="S.", description="Note:\n    mind this")),
        ("S.\n\nExample:\n    >>> f(1)\n    2", Docstring(summary="S.")),
        ("S.\n\nExample:\n    [1] -> 2", Docstring(summary="S.")),
    ],
)
def test_what_is_no_section_stays_text_and_what_is_no_json_is_no_example(text: str, expected: Docstring) -> None:
    """Any docstring has a meaning."""
    assert parse_docstring(text) == expected


@given(st.text(st.sampled_from('aA:\n -><{}"1*.') | st.characters(), max_size=80))
def test_no_docstring_fails(text: str) -> None:
    """Whatever somebody wrote, a service's documentation can be made."""
    assert isinstance(parse_docstring(text), Docstring)
    assert isinstance(parse_docstring(f"S.\n\nArgs:\n    {text}\nExample:\n    {text}"), Docstring)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_any_json_is_a_result(value: Any) -> None:
    """What stands behind the arrow is read as it was written."""
    (example,) = parse_docstring(f"S.\n\nExample:\n    -> {msgspec.json.encode(value).decode()}\n").examples
    assert example.result == value
