"""Where a parameter's value comes from: `Annotated[int, Query()]` and its kin."""

from __future__ import annotations

from typing import ClassVar

import msgspec

__all__ = ["Body", "Cookie", "File", "Form", "Header", "Location", "Path", "Query"]


class Location(msgspec.Struct, frozen=True):
    """Base of the marks. `name` is what the client calls it, where that is not the parameter's own name."""

    where: ClassVar[str] = ""

    name: str | None = None
    description: str = ""


class Path(Location, frozen=True):
    """A part of the path that a `{name}` in the route matched."""

    where: ClassVar[str] = "path"


class Query(Location, frozen=True):
    """The query; a list takes every value given, a Struct its fields."""

    where: ClassVar[str] = "query"


class Header(Location, frozen=True):
    """A header; `user_agent` is looked for as `user-agent`."""

    where: ClassVar[str] = "header"


class Cookie(Location, frozen=True):
    """A cookie."""

    where: ClassVar[str] = "cookie"


class Body(Location, frozen=True, kw_only=True):
    """The body: the whole of it where one parameter alone comes from there, else a field of an object.

    `bytes` takes a whole body undecoded, of any content type.
    """

    where: ClassVar[str] = "body"

    embed: bool = False
    """Take a field of an object, also where this is the only one."""


class Form(Location, frozen=True):
    """A field of an HTML form, in either of its encodings; a Struct takes its fields."""

    where: ClassVar[str] = "form"


class File(Location, frozen=True):
    """A file of a multipart form, as `UploadFile` or, in memory, `bytes`."""

    where: ClassVar[str] = "file"
