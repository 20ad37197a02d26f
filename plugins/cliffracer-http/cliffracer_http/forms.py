"""Forms and uploads: fields to arguments, files to disk past a size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from cliffracer_core import MessageContext
from cliffracer_core.errors import ValidationError
from cliffracer_core.interfaces import Resolver

from .binding import Gathered, pairs_of
from .bodies import chunks
from .errors import UnsupportedMediaType
from .explain import Fault, fractional, infinite_errors, parameter_errors, refuse
from .model import Parameter, RouteModel, field_default
from .uploads import UploadFile, Uploads

__all__ = ["FILES", "UploadResolver", "compile_form"]

FILES = "http.files"
"""Key in a context's `state` of uploads by the handler's parameter."""
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
Values = dict[str, object]
ReadForm = Callable[[Any, Any, int, bytes, Values, Values], Awaitable[FormData]]


class UploadResolver:
    """Give a parameter the file that was uploaded under its name."""

    def __call__(self, context: MessageContext) -> object:
        """Refuse: which file is meant is known by the parameter only."""
        raise ValidationError(f"{context.service}.{context.handler} takes an uploaded file; call it by HTTP")

    def for_parameter(self, name: str) -> Resolver:
        """Return what looks for the parameter's file."""

        def resolve(context: MessageContext) -> object:
            files = context.state.get(FILES)
            if not isinstance(files, dict):
                return self(context)
            return files[name]

        return resolve


def compile_form(model: RouteModel, memory_bytes: int) -> ReadForm:
    """Compile how a form becomes arguments, and uploads in the call's state."""
    fields = [each for each in model.form if each.where == "form"]
    files = [each for each in model.form if each.where == "file"]
    gathered, floats = Gathered(fields), fractional(fields)
    struct = msgspec.defstruct(
        "Form",
        [
            (each.name, each.type, msgspec.field(**({} if each.required else field_default(each.default))))
            for each in fields
        ],
        kw_only=True,
    )

    async def read(
        scope: Any,
        receive: Any,
        limit: int,
        content_type: bytes,
        arguments: dict[str, object],
        state: dict[str, object],
    ) -> FormData:
        form = await _parse(scope, receive, limit, content_type, memory_bytes, multipart=model.multipart)
        try:
            values: dict[str, Any] = {}
            faults: list[Fault] = []
            pairs = form.multi_items()
            gathered.sort([(name, value) for name, value in pairs if isinstance(value, str)], values, faults)
            faults += parameter_errors(fields, values)
            uploads = await _uploads(files, pairs, arguments, faults)
            if not faults:
                found = msgspec.structs.asdict(msgspec.convert(values, struct, strict=False))
                faults = infinite_errors(floats, found)
            if faults:
                raise refuse(faults)
            arguments.update(found)
            state[FILES] = uploads
        except BaseException:
            await form.close()
            raise
        return form

    return read


async def _uploads(
    files: list[Parameter], pairs: list[tuple[str, Any]], arguments: dict[str, object], faults: list[Fault]
) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in files:
        given = [value for name, value in pairs if name == each.alias and isinstance(value, UploadFile)]
        if not given and each.required:
            faults.append({"detail": "it is missing", "in": "form", "parameter": each.alias})
        elif len(given) > 1 and not each.many:
            faults.append({"detail": "it is given twice", "in": "form", "parameter": each.alias})
        elif each.many:
            found[each.name] = Uploads(given)
        elif _takes_bytes(each):
            arguments[each.name] = await given[0].read() if given else each.default
        else:
            found[each.name] = given[0] if given else each.default
    return found


def _takes_bytes(parameter: Parameter) -> bool:
    return "UploadFile" not in str(parameter.type)


async def _parse(
    scope: Any, receive: Any, limit: int, content_type: bytes, memory_bytes: int, *, multipart: bool
) -> FormData:
    plain = parse_options_header(content_type)[0].decode("latin-1")
    try:
        if plain == _MULTIPART:
            parser = MultiPartParser(Headers(scope=scope), chunks(receive, limit))
            parser.spool_max_size = memory_bytes
            return await parser.parse()
        if plain == _FORM and not multipart:
            return FormData([*pairs_of(b"".join([part async for part in chunks(receive, limit)]), "form")])
    except MultiPartException as error:
        raise ValidationError(f"form is broken: {error.message}") from None
    wanted = repr(_MULTIPART) if multipart else f"{_FORM!r} or {_MULTIPART!r}"
    raise UnsupportedMediaType(f"content type {plain[:100]!r} is not taken here; send {wanted}")
