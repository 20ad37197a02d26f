"""From a signature to a typed decoder, and checks of common values.

At start a handler's parameters become a msgspec Struct; per message one C call decodes and checks all.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import inspect as shapes

from .errors import ConfigurationError, ValidationError
from .messages import CODECS, Codec, invalid

__all__ = ["Arguments", "injected", "resolve_annotations"]
__all__ += ["validate_email", "validate_port", "validate_timeout", "validate_url"]

_INJECTED = object()
_asdict = msgspec.structs.asdict
_NOTHING = (b"", b"null", b"\xc0")  # empty, and None in either encoding: what `publish("cache.flushed")` sends
_MUTABLE = (list, dict, set, bytearray)
_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)
_WHOLE = (
    shapes.AnyType,
    shapes.CollectionType,
    shapes.DictType,
    shapes.StructType,
    shapes.TypedDictType,
    shapes.DataclassType,
    shapes.NamedTupleType,
)


def injected() -> Any:
    """Mark a parameter as injected by its default, so that typed clients may leave it out."""
    return _INJECTED


class Arguments:
    """The arguments of one handler: which there are, and how a body becomes them.

    Args:
        where: `<service>.<handler>`, for errors.
        function: the bound handler.
        strict: refuse arguments the handler does not have.
        whole_body: a single parameter of object, array or Any type takes the whole body.
        injectables: parameter types that are given, not decoded.
        checked: refuse types that cannot be decoded; a caller, who only sends, has no need.

    Raises:
        ConfigurationError: naming handler and parameter, where the signature cannot be served.
    """

    def __init__(
        self,
        where: str,
        function: Callable[..., object],
        *,
        strict: bool = False,
        whole_body: bool = False,
        injectables: Collection[type] = (),
        checked: bool = True,
    ) -> None:
        hints = resolve_annotations(where, function)
        returns = hints.get("return", Any)
        self.streams = inspect.isasyncgenfunction(function) or (
            typing.get_origin(returns) in _STREAMS and not inspect.iscoroutinefunction(function)
        )
        """It yields its results; `returns` is then the type of one."""
        self.returns: Any = (*typing.get_args(returns), Any)[0] if self.streams else returns
        self.injected: dict[str, type] = {}
        fields: list[tuple[str, Any, Any]] = []
        for parameter in inspect.signature(function).parameters.values():
            _refuse_kind(where, parameter)
            hint = hints.get(parameter.name, Any)
            hint = Any if hint is object else hint
            wanted = _injectable(hint, injectables)
            if wanted is not None:
                self.injected[parameter.name] = wanted
            elif parameter.default is _INJECTED and not checked:
                continue
            elif parameter.default is _INJECTED:
                known = ", ".join(sorted(each.__name__ for each in injectables))
                raise ConfigurationError(
                    f"handler {where!r}: nothing installed injects parameter {parameter.name!r} of type {hint!r}; "
                    f"known types are {known}"
                )
            else:
                if checked:
                    _check_type(where, parameter.name, hint)
                fields.append((parameter.name, hint, _default(where, parameter)))
        self.whole: str | None = None
        """The parameter that takes the whole body, None where arguments are named."""
        target = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=strict)
        self.struct: type[msgspec.Struct] = target
        """Parameters as a Struct: its JSON Schema is the handler's."""
        if whole_body and len(fields) == 1 and _takes_whole(fields[0][1]):
            self.whole = fields[0][0]
            self._optional = fields[0][2] is not msgspec.NODEFAULT
            target = fields[0][1]
        self.schema_type: Any = target
        """What a body is decoded into."""
        self._decoders = {codec.content_type: codec.decoder(target) for codec in CODECS.values()} if checked else {}
        self.quick: Callable[[bytes], Any] = msgspec.json.Decoder(target if checked else Any).decode
        """Decodes a JSON body into `schema_type`; where it raises, `decode` says why, or that nothing is amiss."""
        self._empty = {codec.content_type: codec.encode({}) for codec in CODECS.values()}

    def decode(self, body: bytes, codec: Codec) -> dict[str, object]:
        """Decode a body into arguments by name; an empty body, or null for named arguments, is an empty object.

        Raises:
            ValidationError: naming the argument.
        """
        kind = codec.content_type
        if self.whole is None:
            return _asdict(self._decoders[kind](self._empty[kind] if body in _NOTHING else body))
        if not body and self._optional:
            return {}
        return {self.whole: self._decoders[kind](body or self._empty[kind])}

    def pack(self, arguments: Mapping[str, object]) -> object:
        """Return what a caller sends for arguments by name: themselves, or the one that is the whole body."""
        return arguments if self.whole is None else arguments.get(self.whole, {})

    def convert(self, arguments: Mapping[str, object], *, lax: bool = False) -> dict[str, object]:
        """Check arguments that are Python values already; `lax` also reads numbers and such from text.

        Raises:
            ValidationError: naming the argument.
        """
        try:
            return msgspec.structs.asdict(msgspec.convert(dict(arguments), self.struct, strict=not lax))
        except msgspec.ValidationError as error:
            raise invalid(error) from None


def resolve_annotations(where: str, function: Callable[..., object]) -> dict[str, Any]:
    """Evaluate a function's annotations, extras kept.

    Raises:
        ConfigurationError: naming handler, parameter and annotation that has no value at run time.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        defined = inspect.unwrap(function)
        namespace = getattr(defined, "__globals__", {})
        for name, annotation in inspect.get_annotations(defined).items():
            if isinstance(annotation, str):
                try:
                    eval(annotation, dict(namespace))
                except Exception as cause:
                    raise ConfigurationError(
                        f"handler {where!r}: annotation {annotation!r} of {name!r} cannot be resolved ({cause}); "
                        f"define the type at module level and import it outside 'if TYPE_CHECKING:'"
                    ) from None
        raise ConfigurationError(f"handler {where!r}: its annotations cannot be resolved: {error}") from error


def _refuse_kind(where: str, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise ConfigurationError(
            f"handler {where!r}: parameter {str(parameter)!r} cannot be sent by name; "
            f"declare plain parameters, or one of type dict"
        )


def _members(hint: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _members(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in _members(part))
    return (hint,)


def _injectable(hint: Any, injectables: Collection[type]) -> type | None:
    found = [member for member in _members(hint) if isinstance(member, type) and member in injectables]
    return found[0] if found else None


def _check_type(where: str, name: str, hint: Any) -> None:
    try:
        info = shapes.type_info(hint)
        msgspec.json.Decoder(hint)
    except TypeError as error:
        raise ConfigurationError(
            f"handler {where!r}: parameter {name!r} has a type that cannot be decoded: {error}; "
            f"tag Structs of a union with 'tag=True', or use one type"
        ) from error
    custom = _find_custom(info, set())
    if custom is not None:
        raise ConfigurationError(
            f"handler {where!r}: parameter {name!r} holds {custom!r}, which has no decoder; "
            f"use builtins, a dataclass, a Struct or a TypedDict, or install the plugin that injects it"
        )


def _find_custom(info: object, seen: set[int]) -> type | None:
    if isinstance(info, shapes.CustomType):
        return None if info.cls is object else info.cls
    if isinstance(info, shapes.Type | shapes.Field) and id(info) not in seen:
        seen.add(id(info))
        for part in (getattr(info, name) for name in info.__struct_fields__):
            for each in part if isinstance(part, tuple) else (part,):
                found = _find_custom(each, seen)
                if found is not None:
                    return found
    return None


def _default(where: str, parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return msgspec.NODEFAULT
    if isinstance(default, _MUTABLE) or not _hashable(default):
        try:
            copy.deepcopy(default)
        except Exception as error:
            raise ConfigurationError(
                f"handler {where!r}: default of {parameter.name!r} is mutable and cannot be copied ({error}); use None"
            ) from error
        return msgspec.field(default_factory=functools.partial(copy.deepcopy, default))
    return default


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _takes_whole(hint: Any) -> bool:
    return any(isinstance(shapes.type_info(member), _WHOLE) for member in _members(hint))


def validate_port(port: int) -> int:
    """Return `port` if it is 1 to 65535. Raises ValidationError."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValidationError(f"port {port!r} is not a whole number from 1 to 65535", details={"field": "port"})
    return port


def validate_timeout(timeout: float) -> float:
    """Return `timeout` (seconds) if it is finite and above 0. Raises ValidationError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not (0 < timeout <= sys.float_info.max):
        raise ValidationError(f"timeout {timeout!r} is not a number of seconds above 0", details={"field": "timeout"})
    return float(timeout)


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@(?=.{{1,253}}$)({_LABEL}\.)+{_LABEL}"


def validate_email(email: str) -> str:
    """Return `email` if it has the form the HTML standard gives for addresses, with a dotted domain.

    Raises:
        ValidationError: it has not.
    """
    local = email.partition("@")[0] if isinstance(email, str) else "."
    if (
        not isinstance(email, str)
        or not re.fullmatch(_EMAIL, email)
        or ".." in local
        or local[0] == "."
        or local[-1] == "."
    ):
        raise ValidationError("value is not an e-mail address of the form name@host.domain", details={"field": "email"})
    return email


def validate_url(url: str, schemes: Collection[str] = ("http", "https")) -> str:
    """Return `url` if it is absolute, with one of `schemes`, a host, a valid port and no space.

    Raises:
        ValidationError: it is not.
    """
    from urllib.parse import urlsplit  # with the first URL, not with the kernel

    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError, TypeError):
        valid = False
    if not valid or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValidationError(
            f"value is not an absolute URL with scheme {' or '.join(schemes)}", details={"field": "url"}
        )
    return url
