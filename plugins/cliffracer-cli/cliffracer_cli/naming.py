"""Names and texts for generated code: whatever a service calls things, they come out as names and texts alone."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Collection

__all__ = ["class_name", "docstring", "identifier", "unique_name"]


_SHADOWING = {"bool", "bytes", "dict", "float", "int", "list", "str", "tuple", "type"}
_SHADOWING |= {"contextlib", "datetime", "decimal", "enum", "msgspec", "raise_as", "self", "uuid"}
"""Names that annotations use, or a method has already."""


def identifier(text: str, fallback: str = "value") -> str:
    """Return an identifier in lower case that resembles the text, and hides nothing that generated code uses."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    name = re.sub(r"\W+", "_", snake, flags=re.ASCII).strip("_").lower() or fallback
    name = f"{fallback}_{name}" if name[0].isdigit() else name
    return f"{name}_" if keyword.iskeyword(name) or name in _SHADOWING else name


def class_name(text: str) -> str:
    """Return the text as a class is named."""
    words = [word for word in re.split(r"[\W_]+", text, flags=re.ASCII) if word]
    name = "".join(word[:1].upper() + word[1:] for word in words) or "Value"
    return f"T{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def unique_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or the first of `name_2`, `name_3`, ... that is not taken."""
    count, chosen = 1, name
    while chosen in taken:
        count += 1
        chosen = f"{name}{count}" if name.isalnum() and name[:1].isupper() else f"{name}_{count}"
    return chosen


def docstring(text: str, indent: str, fallback: str) -> list[str]:
    """Return the lines of a docstring; the text can neither end it nor hold an escape or a control character."""
    lines = textwrap.dedent(text.strip().partition("\n")[2]).splitlines()
    first = text.strip().partition("\n")[0].strip() or fallback
    clean = [_clean(line) for line in (first, *lines)]
    clean[0] = clean[0] if clean[0].endswith((".", "?", "!", ":")) else f"{clean[0]}."
    quotes = 'r"""' if any("\\" in line for line in clean) else '"""'
    if len(clean) == 1:
        return [f'{indent}{quotes}{clean[0]}"""']
    if clean[1]:
        clean.insert(1, "")
    return [f"{indent}{quotes}{clean[0]}", *(f"{indent}{line}".rstrip() for line in clean[1:]), f'{indent}"""']


def _clean(line: str) -> str:
    text = "".join(each if each.isprintable() else " " for each in line).rstrip()
    return text.replace('"', "'") if '"""' in text or text.endswith('"') or text.startswith('"') else text
