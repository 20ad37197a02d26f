"""From a path to what serves it: static paths in a dictionary, others in a tree of segments."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from cliffracer_core.errors import ConfigurationError

__all__ = ["Matcher", "is_broken", "parameters_of"]

T = TypeVar("T")
_PART = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_NO_VALUES: dict[str, str] = {}


class _Node(Generic[T]):
    __slots__ = ("leaf", "names", "one", "rest", "rest_names", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.leaf: T | None = None
        self.names: tuple[str, ...] = ()
        self.rest: T | None = None
        self.rest_names: tuple[str, ...] = ()


def parameters_of(path: str) -> list[tuple[str, bool]]:
    """Return the names in a route's path, and whether each takes all that is left.

    Raises:
        ConfigurationError: the path does not follow the grammar.
    """
    if not path.startswith("/") or "?" in path or "#" in path or not path.isprintable() or " " in path:
        raise ConfigurationError(f"route {path!r}: a path begins with '/' and has no query, space or control character")
    found: list[tuple[str, bool]] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        match = _PART.fullmatch(segment)
        if match is None:
            if "{" in segment or "}" in segment:
                raise ConfigurationError(f"route {path!r}: segment {segment!r} must be '{{name}}' as a whole, or plain")
            if segment in (".", ".."):
                raise ConfigurationError(f"route {path!r}: segment {segment!r} is never sent by a client; leave it out")
            continue
        name, kind = match.groups()
        if not name.isidentifier() or name in (each for each, _ in found):
            raise ConfigurationError(f"route {path!r}: {name!r} must be an identifier that stands there once")
        if kind not in (None, "path") or (kind == "path" and index < len(segments) - 1):
            raise ConfigurationError(
                f"route {path!r}: {segment!r} cannot be; '{{{name}:path}}' may end a path, types stand in annotations"
            )
        found.append((name, kind == "path"))
    return found


class Matcher(Generic[T]):
    """A table of paths. A static segment is preferred to a parameter, a parameter to the rest of the path."""

    def __init__(self) -> None:
        self.static: dict[str, T] = {}
        self._last: dict[str, tuple[T, str]] = {}
        """What has its one parameter as its last segment, by what stands before."""
        self._root: _Node[T] = _Node()
        self._paths: dict[str, T] = {}

    def get(self, path: str) -> T | None:
        """Return what stands for a route's path, parameters under any names; None where nothing does."""
        return self._paths.get(_shape(path))

    def add(self, path: str, value: T) -> None:
        """Add a route's path; `get` must have found nothing."""
        parameters = parameters_of(path)
        self._paths[_shape(path)] = value
        if not parameters:
            self.static[path] = value
            return
        names = tuple(name for name, _ in parameters)
        node = self._root
        for segment in path.split("/")[1:]:
            match = _PART.fullmatch(segment)
            if match is None:
                node = node.static.setdefault(segment, _Node())
            elif match[2] == "path":
                node.rest, node.rest_names = value, names
                return
            else:
                if node.one is None:
                    node.one = _Node()
                node = node.one
        node.leaf, node.names = value, names
        head, _, tail = path.rpartition("/")
        if len(names) == 1 and _PART.fullmatch(tail):
            self._last[head] = value, names[0]

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """Return what serves a request's path and the values of its parameters; None where nothing does.

        A parameter never is empty, and holds no control character, no `..` segment and nothing that was no UTF-8.
        """
        value = self.static.get(path)
        if value is not None:
            return value, _NO_VALUES
        head, _, tail = path.rpartition("/")
        last = self._last.get(head)  # nothing but a wholly static path is preferred to it
        if last is not None and tail and tail[0] != "." and tail.isascii() and tail.isprintable():
            return last[0], {last[1]: tail}
        if not (path.isascii() and path.isprintable()) and is_broken(path):
            return None
        node = self._root
        segments = path.split("/")
        del segments[0]
        if "/." in path and ("." in segments or ".." in segments):
            return None  # clients resolve these; what still has them is after files it should not reach
        values: list[str] = []
        for segment in segments:
            child = node.static.get(segment)
            if child is None:
                child = node.one
                if child is None or not segment:
                    return self._search(self._root, segments, 0, [])
                values.append(segment)
            node = child
        if node.leaf is None:
            return self._search(self._root, segments, 0, [])
        if len(values) == 1:
            return node.leaf, {node.names[0]: values[0]}
        return node.leaf, dict(zip(node.names, values, strict=True))

    def _search(
        self, node: _Node[T], segments: list[str], index: int, values: list[str]
    ) -> tuple[T, dict[str, str]] | None:
        """Find it with going back: a static segment may lead nowhere where a parameter would."""
        if index == len(segments):
            return None if node.leaf is None else (node.leaf, dict(zip(node.names, values, strict=True)))
        segment = segments[index]
        child = node.static.get(segment)
        found = self._search(child, segments, index + 1, values) if child is not None else None
        if found is None and node.one is not None and segment:
            found = self._search(node.one, segments, index + 1, [*values, segment])
        if found is None and node.rest is not None and any(segments[index:]):
            rest = "/".join(segments[index:])
            found = node.rest, dict(zip(node.rest_names, [*values, rest], strict=True))
        return found


def _shape(path: str) -> str:
    return _PART.sub(lambda match: "{:path}" if match[2] else "{}", path)


def is_broken(path: str) -> bool:
    """Tell whether a path holds control characters, or the server's sign for bytes that are no UTF-8."""
    return "\ufffd" in path or any(each < " " or each == "\x7f" for each in path)
