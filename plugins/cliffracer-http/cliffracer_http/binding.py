"""From a request to a handler's arguments, compiled once for each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import cookie_parser

from cliffracer_core.errors import ValidationError

from .errors import UnsupportedMediaType
from .explain import Fault, body_errors, fractional, infinite_errors, parameter_errors, refuse
from .model import BodyModel, Parameter, RouteModel, encoded_names, field_default, is_many

__all__ = ["Bind", "Decode", "Gathered", "compile_body", "compile_parameters", "pairs_of"]

Bind = Callable[[Any, dict[str, str]], dict[str, object]]
"""Take an ASGI scope and the path's values, give arguments by name."""
Decode = Callable[[bytes, bytes], dict[str, object]]
"""Take a body and its content type, give arguments by name."""
Values = dict[str, Any]
_as_dict = msgspec.structs.asdict


class Gathered:
    """Sorts pairs of name and value into the values of parameters: one, several, or the fields of an object."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        self._plain = {each.alias: each for each in parameters if not each.spread}
        self._fields: dict[str, tuple[Parameter, bool]] = {}
        self._open: Parameter | None = None
        for each in parameters:
            names = encoded_names(each.type) if each.spread else {}
            self._fields |= {alias: (each, is_many(hint)) for alias, (_, hint) in names.items()}
            if each.spread and not names:
                self._open = each

    def sort(self, pairs: Sequence[tuple[str, Any]], values: Values, faults: list[Fault]) -> None:
        """Add to `values` what the pairs give, to `faults` what comes twice and may not."""
        for each in self._parameters:
            if each.spread and each.required:
                values[each.name] = {}
        for alias, value in pairs:
            plain = self._plain.get(alias)
            if plain is not None:
                _put(values, plain.name, value, plain.many, alias, plain.where, faults)
                continue
            owner, many = self._fields.get(alias, (self._open, False))
            if owner is not None:
                _put(values.setdefault(owner.name, {}), alias, value, many, alias, owner.where, faults)


def _put(into: Values, name: str, value: Any, many: bool, alias: str, where: str, faults: list[Fault]) -> None:
    if many:
        into.setdefault(name, []).append(value)
    elif name in into:
        faults.append({"detail": "it is given twice", "in": where, "parameter": alias})
    else:
        into[name] = value


def pairs_of(raw: bytes, where: str = "query") -> list[tuple[str, str]]:
    """Split a query, or a form in its encoding.

    Raises:
        ValidationError: what is percent-encoded is no UTF-8, or it has more than 1,000 fields.
    """
    try:
        text = raw.decode("ascii")
        if "%" not in text and "+" not in text:
            fields = text.split("&", 1000)
            if len(fields) > 1000:
                raise ValidationError(f"{where} has more than 1000 fields; send fewer")
            return [(name, value) for name, _, value in (each.partition("=") for each in fields) if name]
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except UnicodeDecodeError:
        raise ValidationError(f"{where} is not UTF-8; percent-encode its bytes as UTF-8") from None
    except ValueError:
        raise ValidationError(f"{where} has more than 1000 fields; send fewer") from None


def compile_parameters(model: RouteModel) -> Bind | None:
    """Compile how path, query, headers and cookies become arguments; None where the path's values are these."""
    parameters = model.parameters
    if not parameters:
        return lambda scope, values: {}
    if all(each.where == "path" and each.type is str and each.alias == each.name for each in parameters):
        return None
    struct = msgspec.defstruct(
        "Parameters",
        [
            (each.name, each.type, msgspec.field(**({} if each.required else field_default(each.default))))
            for each in parameters
        ],
        kw_only=True,
    )
    path = [(each.name, each.alias) for each in parameters if each.where == "path"]
    only_path = len(path) == len(parameters)
    sources = [each for each in map(_source, _by_place(parameters)) if each is not None]
    convert = msgspec.convert

    if only_path and len(path) == 1:
        name, alias, hint = *path[0], parameters[0].type

        def bind_one(scope: Any, values: dict[str, str]) -> dict[str, object]:
            value = values[alias]
            try:
                return {name: convert(value, hint, strict=False)}
            except (msgspec.ValidationError, ValueError, OverflowError):
                raise refuse(parameter_errors(parameters, {name: value}) or [_UNKNOWN]) from None

        return _finite(parameters, bind_one)

    def bind_path(scope: Any, values: dict[str, str]) -> dict[str, object]:
        found = {name: values[alias] for name, alias in path}
        try:
            return _as_dict(convert(found, struct, strict=False))
        except (msgspec.ValidationError, ValueError, OverflowError):
            raise refuse(parameter_errors(parameters, found) or [_UNKNOWN]) from None

    def bind(scope: Any, values: dict[str, str]) -> dict[str, object]:
        found: Values = {name: values[alias] for name, alias in path}
        faults: list[Fault] = []
        for source in sources:
            source(scope, found, faults)
        if faults:
            raise refuse([*faults, *parameter_errors(parameters, found)])
        try:
            return _as_dict(convert(found, struct, strict=False))
        except (msgspec.ValidationError, ValueError, OverflowError):
            raise refuse(parameter_errors(parameters, found) or [_UNKNOWN]) from None

    return _finite(parameters, bind_path if only_path else bind)


def _finite(parameters: Sequence[Parameter], bind: Bind) -> Bind:
    """Wrap what may give a float, so that it is a number."""
    floats = fractional(parameters)
    if not floats:
        return bind

    def checked(scope: Any, values: dict[str, str]) -> dict[str, object]:
        found = bind(scope, values)
        faults = infinite_errors(floats, found)
        if faults:
            raise refuse(faults)
        return found

    return checked


_UNKNOWN: Fault = {"detail": "a value does not fit", "in": "query", "parameter": "?"}


def _by_place(parameters: Sequence[Parameter]) -> list[tuple[str, list[Parameter]]]:
    return [(where, [each for each in parameters if each.where == where]) for where in ("query", "header", "cookie")]


def _source(place: tuple[str, list[Parameter]]) -> Callable[[Any, Values, list[Fault]], None] | None:
    where, parameters = place
    if not parameters:
        return None
    gathered = Gathered(parameters)
    wanted = {each.alias.encode("latin-1") for each in parameters}

    def query(scope: Any, found: Values, faults: list[Fault]) -> None:
        raw = scope["query_string"]
        gathered.sort(pairs_of(raw) if raw else (), found, faults)

    def header(scope: Any, found: Values, faults: list[Fault]) -> None:
        pairs = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name in wanted
        ]
        gathered.sort(pairs, found, faults)

    def cookie(scope: Any, found: Values, faults: list[Fault]) -> None:
        text = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
        gathered.sort(list(cookie_parser(text).items()), found, faults)

    return {"query": query, "header": header, "cookie": cookie}[where]


_JSON = (b"application/json", b"application/json; charset=utf-8", b"")
_MSGPACK = (b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack")


def compile_body(body: BodyModel) -> Decode:
    """Compile how a body becomes arguments: one pass over its bytes."""
    if body.raw and body.whole is not None:
        return _raw(body.whole, body)
    loaders: dict[bytes, type[Any]] = {
        **dict.fromkeys(_JSON, msgspec.json.Decoder), **dict.fromkeys(_MSGPACK, msgspec.msgpack.Decoder)
    }  # fmt: skip
    by_class = {each: each(body.type).decode for each in set(loaders.values())}
    decoders = {name: by_class[each] for name, each in loaders.items()}
    whole = body.whole

    def decode(raw: bytes, content_type: bytes) -> dict[str, object]:
        if not raw:
            return _empty(body)
        decoder = decoders.get(content_type)
        if decoder is None:
            decoder = decoders[_known(content_type)]
        try:
            value = decoder(raw)
        except (ValueError, RecursionError, OverflowError, MemoryError) as error:  # of which msgspec's are
            raise _explained(error, raw, content_type, body, loaders) from None
        return _as_dict(value) if whole is None else {whole: value}

    return decode


def _raw(name: str, body: BodyModel) -> Decode:
    def decode(raw: bytes, content_type: bytes) -> dict[str, object]:
        return {name: raw} if raw or body.required else _empty(body)

    return decode


def _empty(body: BodyModel) -> dict[str, object]:
    if body.required:
        raise refuse([{"detail": "it is missing", "in": "body", "pointer": "#"}])
    if body.whole is not None:
        return {body.whole: _fresh(body.default)}
    return _as_dict(body.type())


def _fresh(default: Any) -> Any:
    made = field_default(default)
    return made["default_factory"]() if "default_factory" in made else default


def _known(content_type: bytes) -> bytes:
    """Return a content type without its parameters, `application/json` for all that end in `+json`."""
    plain = content_type.partition(b";")[0].strip().lower()
    if plain.endswith(b"+json"):
        return b"application/json"
    if plain not in _JSON and plain not in _MSGPACK:
        named = plain.decode("latin-1")[:100]
        raise UnsupportedMediaType(
            f"content type {named!r} is not taken here; send 'application/json' or 'application/msgpack'"
        )
    return plain


def _explained(
    error: Exception, raw: bytes, content_type: bytes, body: BodyModel, loaders: Mapping[bytes, type[Any]]
) -> ValidationError:
    if isinstance(error, msgspec.ValidationError):
        loader = loaders[content_type if content_type in loaders else _known(content_type)]
        try:
            faults = body_errors(loader(Any).decode(raw), body.type)
        except (ValueError, RecursionError) as problem:
            error = problem
        else:
            if not faults:
                faults = [{"detail": str(error), "in": "body", "pointer": "#"}]
            return refuse(faults)
    if isinstance(error, RecursionError):
        return refuse([{"detail": "it nests too deeply", "in": "body", "pointer": "#"}])
    text = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
    if b"msgpack" in content_type:
        text = "MessagePack"
    return refuse([{"detail": f"it is not valid {text}: {error}", "in": "body", "pointer": "#"}])
