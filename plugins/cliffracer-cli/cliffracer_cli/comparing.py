"""Comparing two contracts: what breaks callers of the old one, and what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from .contracts import Contract, Endpoint, Schema, alternatives

__all__ = ["Change", "compare"]

Side = Literal["argument", "result"]
_FLOORS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_CEILINGS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("format", "pattern", "multipleOf", "contentEncoding", "uniqueItems")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference."""

    breaking: bool
    endpoint: str
    where: str
    """`argument user.name`, `result[].id`; empty for the endpoint itself."""
    what: str


def compare(old: Contract, new: Contract) -> list[Change]:
    """Compare contracts by subject, which is what callers use.

    A caller of the old one must be able to send what it sent, and to read what comes back.

    Returns:
        Breaking changes first, each kind by endpoint.
    """
    before = {each.subject: each for each in old.endpoints}
    after = {each.subject: each for each in new.endpoints}
    changes = [
        Change(breaking=True, endpoint=before[subject].name, where="", what=f"subject {subject!r} is gone")
        for subject in before.keys() - after.keys()
    ]
    changes += [
        Change(breaking=False, endpoint=after[subject].name, where="", what=f"subject {subject!r} is new")
        for subject in after.keys() - before.keys()
    ]
    for subject in before.keys() & after.keys():
        changes += _compare_endpoints(before[subject], after[subject])
    unique = dict.fromkeys(changes)
    return sorted(unique, key=lambda each: (not each.breaking, each.endpoint, each.where, each.what))


def _compare_endpoints(old: Endpoint, new: Endpoint) -> Iterator[Change]:
    errors = [{each.type for each in endpoint.errors} for endpoint in (old, new)]
    for kept, others, what in ((errors[1], errors[0], "may now raise"), (errors[0], errors[1], "no longer raises")):
        for each in kept - others:
            yield Change(breaking=False, endpoint=new.name, where="", what=f"{what} {each!r}")
    if old.stream != new.stream:
        what = "streams its reply now" if new.stream else "streams its reply no more"
        yield Change(breaking=True, endpoint=new.name, where="", what=what)
    sides: tuple[tuple[Side, Schema, Schema], ...] = (
        ("argument", old.request, new.request),
        ("result", old.response, new.response),
    )
    for side, before, after in sides:
        walk = _Walk(new.name, side, before.get("$defs", {}), after.get("$defs", {}))
        yield from walk.differences(before, after, "")


class _Walk:
    """One walk along an old and a new schema.

    Arguments flow from old callers to the new service, so the new schema must take all that the old one
    took; results flow back, so it must give nothing that the old one did not.
    """

    def __init__(self, endpoint: str, side: Side, old: Mapping[str, Schema], new: Mapping[str, Schema]) -> None:
        self._endpoint = endpoint
        self._side = side
        self._old = old
        self._new = new
        self._open: set[tuple[str, str]] = set()
        """What is being compared, so that recursive types come to an end."""

    def _change(self, breaking: bool, path: str, what: str) -> Change:
        where = f"{self._side} {path.removeprefix('.')}" if path.startswith(".") else f"{self._side}{path}"
        return Change(breaking=breaking, endpoint=self._endpoint, where=where, what=what)

    def differences(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        """Yield what differs at a path and below."""
        pair = (_text(old), _text(new))
        if pair in self._open:
            return
        self._open.add(pair)
        olds, news = alternatives(old, self._old), alternatives(new, self._new)
        if len(olds) == len(news) == 1:
            yield from self._single(olds[0], news[0], path)
        else:
            yield from self._unions(olds, news, path)
        self._open.discard(pair)

    def _unions(self, olds: list[Schema], news: list[Schema], path: str) -> Iterator[Change]:
        """Match alternatives of the same kind, and judge those that have no partner."""
        rest = list(news)
        for old in olds:
            partner = next((new for new in rest if _key(new) == _key(old)), None)
            if partner is not None:
                rest.remove(partner)
                yield from self._single(old, partner, path)
            elif not any(_takes(new, old) for new in news):
                yield self._change(self._side == "argument", path, f"is no longer {_describe(old)}")
        for new in rest:
            if not any(_takes(old, new) for old in olds):
                yield self._change(self._side == "result", path, f"may now be {_describe(new)}")

    def _single(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        kinds = _kind(old), _kind(new)
        if kinds == ("object", "object"):
            yield from self._objects(old, new, path)
        elif kinds == ("array", "array"):
            yield from self._arrays(old, new, path)
        elif kinds == ("enum", "enum"):
            yield from self._enums(old, new, path)
        elif kinds[0] != kinds[1]:
            source, target = (old, new) if self._side == "argument" else (new, old)
            what = f"was {_describe(old)}, is {_describe(new)}"
            yield self._change(not _takes(target, source), path, what)
            return
        yield from self._limits(old, new, path)

    def _objects(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        needed, now_needed = set(old.get("required", ())), set(new.get("required", ()))
        is_argument = self._side == "argument"
        for name in sorted({*olds, *news}):
            below = f"{path}.{name}"
            if name not in news:
                refused = new.get("additionalProperties") is False
                what = "is refused" if is_argument and refused else "is no longer read" if is_argument else "is gone"
                yield self._change(not is_argument or refused, below, what)
            elif name not in olds:
                added = "is new and required" if is_argument and name in now_needed else "is new"
                strict = old.get("additionalProperties") is False
                yield self._change(name in now_needed if is_argument else strict, below, added)
            else:
                if (name in needed) != (name in now_needed):
                    what = "is now required" if name in now_needed else "is now optional"
                    yield self._change((name in now_needed) == is_argument, below, what)
                if "default" in olds[name] and "default" in news[name]:
                    before, after = _text(olds[name]["default"]), _text(news[name]["default"])
                    if before != after:
                        yield self._change(False, below, f"has default {after}, was {before}")
                yield from self.differences(olds[name], news[name], below)
        values = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(values[0], Mapping) or isinstance(values[1], Mapping):
            both = [each if isinstance(each, Mapping) else {} for each in values]
            yield from self.differences(both[0], both[1], f"{path}{{}}")

    def _arrays(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        olds, news = old.get("prefixItems", ()), new.get("prefixItems", ())
        for index, (before, after) in enumerate(zip(olds, news, strict=False)):
            yield from self.differences(before, after, f"{path}[{index}]")
        if len(olds) != len(news):
            yield self._change(True, path, f"had {len(olds)} fixed items, has {len(news)}")
        before, after = (each.get("items", {}) for each in (old, new))
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from self.differences(before, after, f"{path}[]")

    def _enums(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        before, after = ({_text(each) for each in _values(schema)} for schema in (old, new))
        for value in sorted(before - after):
            yield self._change(self._side == "argument", path, f"is no longer {value}")
        for value in sorted(after - before):
            yield self._change(self._side == "result", path, f"may now be {value}")

    def _limits(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        source, target = (old, new) if self._side == "argument" else (new, old)
        for key in (*_FLOORS, *_CEILINGS, *_EXACT):
            before, after = old.get(key), new.get(key)
            if before != after:
                what = f"has {key} {_text(after)}" if after is not None else f"has no {key} any more"
                yield self._change(not _within(key, source, target), path, what)


def _within(key: str, source: Schema, target: Schema) -> bool:
    """Tell whether what keeps to the source's limits keeps to one of the target's."""
    limit = target.get(key)
    if limit is None:
        return True
    if key in _EXACT:
        return bool(source.get(key) == limit)
    sign = 1 if key in _FLOORS else -1
    name = key.removeprefix("exclusive")
    step = 1 if source.get("type") == "integer" else 0
    kept = [sign * source[each] for each in (name[:1].lower() + name[1:],) if each in source]
    beyond = [sign * source[each] for each in (f"exclusive{name[:1].upper()}{name[1:]}",) if each in source]
    if key.startswith("exclusive"):
        return any(each > sign * limit for each in kept) or any(each >= sign * limit for each in beyond)
    return any(each >= sign * limit for each in (*kept, *(each + step for each in beyond)))


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _kind(schema: Schema) -> str:
    """Name the type: a JSON one, `enum` or `any`."""
    if "enum" in schema or "const" in schema:
        return "enum"
    return str(schema.get("type") or "any")


def _key(schema: Schema) -> tuple[str, str]:
    """Return what an alternative of a union is matched by: its kind, and an object's tag, a property of one value."""
    properties = schema.get("properties", {}).items() if _kind(schema) == "object" else ()
    tags = (_text([name, *_values(each)]) for name, each in properties if len(_values(each)) == 1)
    return _kind(schema), next(tags, "")


def _takes(target: Schema, source: Schema) -> bool:
    """Tell whether a schema of one kind takes all values of another kind."""
    kinds = _kind(target), _kind(source)
    if kinds[0] == "any" or kinds == ("number", "integer"):
        return True
    if kinds[1] != "enum" or kinds[0] == "enum":
        return False
    names = {
        str: ("string",),
        bool: ("boolean",),
        int: ("integer", "number"),
        float: ("number",),
        type(None): ("null",),
    }
    bare = not any(key in target for key in (*_FLOORS, *_CEILINGS, *_EXACT))
    return bare and all(kinds[0] in names.get(type(value), ()) for value in _values(source))


def _describe(schema: Schema) -> str:
    if _kind(schema) == "enum":
        return "one of " + ", ".join(_text(each) for each in _values(schema))
    title = schema.get("title")
    return f"{_kind(schema)} {title}" if title else str(schema.get("format") or _kind(schema))


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
