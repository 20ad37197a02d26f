"""What a route takes and gives: plain data, made at start from a handler's signature.

Everything else is built on it: the binding, the documentation.
"""

from __future__ import annotations

import copy
import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import inspect as shapes

from cliffracer_core.docstrings import Docstring, parse_docstring, raised_errors
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Security, Signature
from cliffracer_core.validation import resolve_annotations

from .marks import OWNER, RouteOptions
from .matcher import parameters_of
from .params import Body, Location
from .params import Path as PathMark
from .uploads import UPLOADS, UploadFile, Uploads

__all__ = ["SAFE", "BodyModel", "Parameter", "RouteModel", "encoded_names", "is_many", "models_of", "path_of"]

_WITHOUT_BODY = ("GET", "HEAD", "DELETE", "OPTIONS")
_MANY = (shapes.CollectionType, shapes.TupleType)
_OBJECTS = (shapes.StructType, shapes.TypedDictType, shapes.DataclassType, shapes.NamedTupleType, shapes.DictType)
_STATUS_WITHOUT_BODY = (204, 205, 304)
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing, so that a request may be sent again without a key."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a route that does not come from a JSON body."""

    name: str
    """The handler's own name for it."""
    alias: str
    """What the client calls it."""
    where: Literal["path", "query", "header", "cookie", "form", "file"]
    type: Any
    default: Any = msgspec.UNSET
    many: bool = False
    """It takes every value that is given, as an array."""
    spread: bool = False
    """It is an object whose fields stand in the query or form one by one."""
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether a request without it is refused."""
        return self.default is msgspec.UNSET


class BodyModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a route's body is decoded into."""

    type: Any
    """A Struct of the named fields, or the type of the whole body."""
    whole: str | None = None
    """The parameter that takes all of it; None where its fields are parameters."""
    required: bool = True
    default: Any = msgspec.UNSET
    """Of the parameter that takes all of it."""
    raw: bool = False
    """It is taken as bytes, of any content type."""
    content_types: tuple[str, ...] = ("application/json", "application/msgpack")
    description: str = ""


class RouteModel(msgspec.Struct, frozen=True, kw_only=True):
    """One route: one method on one path."""

    service: str
    handler: str
    method: str
    path: str
    """With the service's prefix and the route's version, as `/v1/users/{id}`."""
    parameters: tuple[Parameter, ...] = ()
    form: tuple[Parameter, ...] = ()
    """Fields and files of a form; a route has these or a `body`."""
    body: BodyModel | None = None
    multipart: bool = False
    """It takes files, so that its form must be multipart."""
    injected: Mapping[str, type] = {}
    returns: Any = Any
    """The type of the result, or of one item where it streams."""
    streams: bool = False
    status_code: int = 200
    media_type: str | None = None
    tags: tuple[str, ...] = ()
    summary: str = ""
    description: str = ""
    deprecated: bool = False
    include_in_schema: bool = True
    max_body_bytes: int | None = None
    timeout_s: float | None = None
    errors: tuple[type[Exception], ...] = ()
    security: tuple[Security, ...] = ()
    """Ways to be let in, any of which will do; empty where plugins say nothing of it."""
    docs: Docstring = Docstring()

    @property
    def where(self) -> str:
        """`GET /users/{id}`, as in errors."""
        return f"{self.method} {self.path}"

    @property
    def keyed(self) -> bool:
        """Whether a request may carry an `Idempotency-Key`; streams and uploads are not remembered."""
        return self.method not in SAFE and not self.streams and not self.multipart

    @property
    def without_body(self) -> bool:
        """Whether its success has no body."""
        return self.status_code in _STATUS_WITHOUT_BODY


def models_of(
    declaration: Declaration, signature: Signature, prefix: str = "", security: Sequence[Security] = ()
) -> list[RouteModel]:
    """Return the routes of a handler, one for each path and method.

    Raises:
        ConfigurationError: a path or a signature that cannot be served.
    """
    made = []
    for each in declaration.find(OWNER, "http"):
        options: RouteOptions = each.options
        path = path_of(options, prefix)
        models = (_model(declaration, signature, options, method, path) for method in options.methods)
        made += [msgspec.structs.replace(model, security=tuple(security)) if security else model for model in models]
    return made


def path_of(options: RouteOptions, prefix: str) -> str:
    """Return a route's whole path: the service's prefix, the route's version, its path."""
    version = f"/{options.version.strip('/')}" if options.version else ""
    return f"{prefix.rstrip('/')}{version}{options.path}"


def _model(declaration: Declaration, signature: Signature, options: RouteOptions, method: str, path: str) -> RouteModel:
    parameters: list[Parameter] = []
    form: list[Parameter] = []
    bodies: list[tuple[inspect.Parameter, Any, Body]] = []
    in_path = [name for name, _ in parameters_of(path)]
    hints = resolve_annotations(declaration.where, declaration.function)
    for parameter in inspect.signature(declaration.function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if parameter.name in signature.injected and signature.injected[parameter.name] not in UPLOADS:
            continue
        mark = _mark(hint)
        where = _where(parameter, hint, mark, method, in_path)
        if where == "body":
            bodies.append((parameter, hint, mark if isinstance(mark, Body) else Body()))
        else:
            target = form if where in ("form", "file") else parameters
            target.append(_parameter(declaration, parameter, hint, mark, where, in_path))
    missing = set(in_path) - {each.alias for each in parameters if each.where == "path"}
    if missing:
        raise ConfigurationError(
            f"handler {declaration.where!r}: route {path!r} has {sorted(missing)!r}, which no parameter takes; add them"
        )
    if form and bodies:
        names = ", ".join(each.name for each, _, _ in bodies)
        raise ConfigurationError(
            f"handler {declaration.where!r}: a form and a JSON body exclude each other; annotate {names} with Form()"
        )
    docs = parse_docstring(declaration.doc)
    return RouteModel(
        service=declaration.service,
        handler=declaration.name,
        method=method,
        path=path,
        parameters=tuple(parameters),
        form=tuple(form),
        multipart=any(each.where == "file" for each in form),
        body=_body(declaration, bodies),
        injected={
            name: type for name, type in signature.injected.items() if type not in UPLOADS
        },
        returns=signature.returns,
        streams=signature.streams,
        status_code=options.status_code,
        media_type=options.media_type,
        tags=options.tags,
        summary=options.summary if options.summary is not None else docs.summary,
        description=options.description if options.description is not None else docs.description,
        deprecated=options.deprecated,
        include_in_schema=options.include_in_schema,
        max_body_bytes=options.max_body_bytes,
        timeout_s=options.timeout,
        errors=tuple(dict.fromkeys((*options.errors, *raised_errors(declaration.function, docs)))),
        docs=docs,
    )  # fmt: skip


def _mark(hint: Any) -> Location | None:
    found = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Location)]
    found += [
        each() for each in getattr(hint, "__metadata__", ()) if isinstance(each, type) and issubclass(each, Location)
    ]
    return found[0] if found else None


def _where(parameter: inspect.Parameter, hint: Any, mark: Location | None, method: str, in_path: list[str]) -> Any:
    if mark is not None:
        return mark.where
    if parameter.name in in_path:
        return "path"
    members = _members(hint)
    if any(each in UPLOADS for each in members):
        return "file"
    if method not in _WITHOUT_BODY:
        return "body"
    infos = [shapes.type_info(each) for each in members]
    return "body" if any(isinstance(each, _OBJECTS) for each in infos) else "query"


def _parameter(
    declaration: Declaration, parameter: inspect.Parameter, hint: Any, mark: Location | None, where: Any,
    in_path: list[str],
) -> Parameter:  # fmt: skip
    name = parameter.name
    alias = (mark.name if mark else None) or (name.replace("_", "-") if where == "header" else name)
    if isinstance(mark, PathMark) and alias not in in_path:
        raise ConfigurationError(
            f"handler {declaration.where!r}: parameter {name!r} comes from the path, which has no '{{{alias}}}'; add it"
        )
    uploads = any(each is Uploads for each in _members(hint))
    infos = [shapes.type_info(each) for each in _members(hint) if each not in UPLOADS]
    return Parameter(
        name=name,
        alias=alias.lower() if where == "header" else alias,
        where=where,
        type=hint,
        default=default_of(parameter),
        many=uploads or (where != "path" and is_many(hint)),
        spread=where in ("query", "form") and any(isinstance(each, _OBJECTS) for each in infos),
        description=mark.description if mark else "",
    )


def _body(declaration: Declaration, bodies: list[tuple[inspect.Parameter, Any, Body]]) -> BodyModel | None:
    if not bodies:
        return None
    if len(bodies) == 1:
        parameter, hint, mark = bodies[0]
        default = default_of(parameter)
        whole = {"whole": parameter.name, "default": default, "required": default is msgspec.UNSET}
        if _mark(hint) is not None and bytes in _members(hint):
            return BodyModel(type=bytes, raw=True, content_types=("*/*",), description=mark.description, **whole)
        infos = [shapes.type_info(each) for each in _members(hint)]
        composed = any(isinstance(each, (*_OBJECTS, *_MANY)) for each in infos)
        if not mark.embed and mark.name is None and (composed or _mark(hint) is not None):
            return BodyModel(type=hint, description=mark.description, **whole)
    fields = [
        (parameter.name, hint, msgspec.field(name=mark.name, **_field_default(parameter)))
        for parameter, hint, mark in bodies
    ]
    required = any(parameter.default is parameter.empty for parameter, _, _ in bodies)
    struct = msgspec.defstruct(f"{declaration.name}_body", fields, kw_only=True)
    return BodyModel(type=struct, required=required)


def default_of(parameter: inspect.Parameter) -> Any:
    """Return a parameter's default, `msgspec.UNSET` without one."""
    return msgspec.UNSET if parameter.default is parameter.empty else parameter.default


def _field_default(parameter: inspect.Parameter) -> dict[str, Any]:
    if parameter.default is parameter.empty:
        return {}
    return field_default(parameter.default)


def field_default(default: Any) -> dict[str, Any]:
    """Return arguments of `msgspec.field` that give each decoded object a default of its own."""
    try:
        hash(default)
    except TypeError:
        return {"default_factory": functools.partial(copy.deepcopy, default)}
    return {"default": default}


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, extras and None left out."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if origin in (typing.Union, type(int | str)):
        return tuple(each for part in typing.get_args(hint) for each in _members(part) if each is not type(None))
    return (hint,)


def is_many(hint: Any) -> bool:
    """Tell whether a type takes several values, such as `list[int]`."""
    return any(
        isinstance(shapes.type_info(each), _MANY)
        for each in _members(hint)
        if each is not UploadFile and each is not Uploads
    )


def encoded_names(type: Any) -> dict[str, tuple[str, Any]]:
    """Return name on the wire to name and type of each field of an object type; nothing for a dict."""
    for each in _members(type):
        info = shapes.type_info(each)
        if isinstance(info, shapes.StructType | shapes.TypedDictType | shapes.DataclassType | shapes.NamedTupleType):
            hints = typing.get_type_hints(each, include_extras=True)
            return {field.encode_name: (field.name, hints[field.name]) for field in info.fields}
    return {}
