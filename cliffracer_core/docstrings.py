"""What a handler's docstring says, part by part; documentation is made from it.

Google style: a first line, text, and sections such as `Args:`, `Returns:`, `Raises:` and `Example:`. An example is
JSON, arguments by name and what comes of them:

Example:
        {"name": "Ada"} -> {"id": 7, "name": "Ada"}

Either side may be left out, several may stand one after the other, and each may take several lines.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import CliffracerError

__all__ = ["Docstring", "Example", "parse_docstring", "raised_errors"]

_SECTIONS = {
    "args": "arguments", "arguments": "arguments", "parameters": "arguments", "returns": "returns",
    "return": "returns", "yields": "returns", "raises": "raises", "example": "examples", "examples": "examples",
}  # fmt: skip
_HEADING = re.compile(r"(\w+):")
_ENTRY = re.compile(r"\*{0,2}([\w.]+(?:, *[\w.]+)*)(?: *\([^)]*\))?: *(.*)")
_ARROW = re.compile(r"\s*->")
_json = json.JSONDecoder()


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One example; a side that is not there is `msgspec.UNSET`."""

    arguments: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    result: Any = msgspec.UNSET


class Docstring(msgspec.Struct, frozen=True, kw_only=True):
    """A docstring, taken apart."""

    summary: str = ""
    description: str = ""
    """All that stands in no section, but for the summary."""
    arguments: Mapping[str, str] = {}
    returns: str = ""
    raises: Mapping[str, str] = {}
    """By the name of the exception, as it is written."""
    examples: tuple[Example, ...] = ()


def parse_docstring(text: str) -> Docstring:
    """Take a docstring apart, as `inspect.getdoc` gives it; what is no section it knows stays text."""
    free: list[str] = []
    sections: dict[str, list[str]] = {}
    into = free
    for line in text.split("\n"):
        heading = _HEADING.fullmatch(line.rstrip())
        name = _SECTIONS.get(heading[1].lower()) if heading else None
        if name is not None:
            into = sections.setdefault(name, [])
            continue
        if into is not free and line and not line[0].isspace():
            into = free
        into.append(line)
    summary, _, description = "\n".join(free).strip().partition("\n\n")
    bodies = {name: textwrap.dedent("\n".join(lines)).strip("\n") for name, lines in sections.items()}
    return Docstring(
        summary=" ".join(summary.split()),
        description=re.sub(r"\n{3,}", "\n\n", description).strip(),
        arguments=dict(_entries(bodies.get("arguments", ""))),
        returns=" ".join(bodies.get("returns", "").split()),
        raises=dict(_entries(bodies.get("raises", ""))),
        examples=tuple(_examples(bodies.get("examples", ""))),
    )


def raised_errors(function: Callable[..., object], docs: Docstring) -> list[type[CliffracerError]]:
    """Return those of the errors named under `Raises:` that a function's module knows and that a caller may see."""
    names = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__globals__", {})
    found: list[type[CliffracerError]] = []
    for name in docs.raises:
        first, *rest = name.split(".")
        each: Any = names.get(first)
        for attribute in rest:
            each = getattr(each, attribute, None)
        if isinstance(each, type) and issubclass(each, CliffracerError):
            found.append(each)
    return found


def _entries(body: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of entries; a line that is indented goes on with the one before."""
    for entry in re.split(r"\n(?=\S)", body):
        match = _ENTRY.match(entry)
        if match is not None:
            text = " ".join((match[2] + entry[match.end() :]).split())
            yield from ((name.strip(), text) for name in match[1].split(","))


def _examples(body: str) -> Iterator[Example]:
    position, end = 0, len(body)
    while position < end:
        arguments, after = _value(body, position)
        result: Any = msgspec.UNSET
        arrow = _ARROW.match(body, after)
        if arrow is not None:
            result, after = _value(body, arrow.end())
        if after == position or not isinstance(arguments, dict | msgspec.UnsetType):
            return  # no JSON, such as a doctest
        if not (arguments is msgspec.UNSET and result is msgspec.UNSET):
            yield Example(arguments=arguments, result=result)
        position = _start(body, after)


def _value(body: str, position: int) -> tuple[Any, int]:
    """Read one JSON text; `UNSET`, and the position as it was, where there is none."""
    try:
        return _json.raw_decode(body, _start(body, position))
    except ValueError:
        return msgspec.UNSET, position


def _start(body: str, position: int) -> int:
    return len(body) - len(body[position:].lstrip())
