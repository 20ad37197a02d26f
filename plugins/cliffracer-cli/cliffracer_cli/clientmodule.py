"""Writing a typed client: a module with the types of a service's contract, and a class with its methods."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

from cliffracer_core import errors as kernel
from cliffracer_core.errors import CliffracerError

from .contracts import Contract, Endpoint, Schema, resolved
from .naming import class_name, docstring, identifier, unique_name
from .pythontypes import UNSET, Types, literal

__all__ = ["client_module"]

_KNOWN = {each.code for each in vars(kernel).values() if isinstance(each, type) and issubclass(each, CliffracerError)}
_HEAD = """from __future__ import annotations
"""
_INIT = '''
    def __init__(self, caller: Caller, *, timeout: float | None = None) -> None:
        """Make a client.

        Args:
            caller: who calls, such as `service.caller` or `ClientProxy(...).caller`.
            timeout: seconds per call; the caller's default where None.
        """
        self._caller = caller
        self._timeout = timeout
'''


def client_module(contract: Contract) -> str:
    """Return the source of a module with a typed client; the same for the same contract."""
    name = class_name(contract.service) + "Client"
    types = Types(taken=(name,))
    for each in {error.type: error for endpoint in contract.endpoints for error in endpoint.errors}.values():
        if each.type not in _KNOWN:
            types.error(each)
    methods: dict[str, list[str]] = {}
    for endpoint in contract.endpoints:
        method = unique_name(identifier(endpoint.name, "call"), methods)
        methods[method] = _method(contract, endpoint, method, types)
    about = contract.description or f"A client of service '{contract.service}'"
    lines = [f"class {name}:", *docstring(about, "    ", "A client"), *_INIT.rstrip("\n").split("\n")]
    for method_lines in methods.values():
        lines += ["", *method_lines]
    body = "\n\n\n".join("\n".join(block) for block in [*types.blocks, lines])
    version = f", version {contract.version}" if contract.version else ""
    about = f"Typed client of service '{contract.service}'{version}, written by 'cliffracer client'; do not edit"
    return "\n".join([*docstring(about, "", ""), "", _HEAD, *_imports(body), "", "", body, ""])


def _imports(body: str) -> list[str]:
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    standard = [f"import {each}" for each in ("contextlib", "datetime", "decimal", "enum", "uuid") if each in used]
    for module, names in (("collections.abc", ("AsyncGenerator",)), ("typing", ("Any", "Literal"))):
        found = [each for each in names if each in used]
        if found:
            standard.append(f"from {module} import {', '.join(found)}")
    foreign = [*(["import msgspec"] if "msgspec" in used else []), "from cliffracer_core.caller import Caller"]
    errors = [each for each in ("CliffracerError", "RPCError", "raise_as") if each in used]
    if errors:
        foreign.append(f"from cliffracer_core.errors import {', '.join(errors)}")
    return [*standard, *([""] if standard else []), *foreign]


def _method(contract: Contract, endpoint: Endpoint, method: str, types: Types) -> list[str]:
    definitions: Mapping[str, Schema] = endpoint.request.get("$defs", {})
    request = resolved(endpoint.request, definitions)
    title = class_name(endpoint.name)
    returns = types.annotation(endpoint.response, endpoint.response.get("$defs", {}), f"{title}Result")
    if request.get("type") == "object" and ("properties" in request):
        named = {**request, "title": f"{title}Arguments", "description": f"The arguments of '{endpoint.name}'"}
        return _spread(contract, endpoint, method, types, named, returns)
    annotation = types.annotation(endpoint.request, definitions, f"{title}Payload")
    default = " | None = None" if annotation == "Any" else ""
    annotation = "object" if default else annotation
    taken, shown = annotation.removesuffix(" | None"), _shown(endpoint, returns)
    signature = [f"    async def {method}(self, payload: {taken}{default}) -> {shown}:"]
    return [*signature, *_doc(endpoint), *_call(contract, endpoint, "payload", returns, types, ("payload",))]


def _spread(
    contract: Contract, endpoint: Endpoint, method: str, types: Types, request: Schema, returns: str
) -> list[str]:
    """Write a method that takes an object's fields by name."""
    definitions: Mapping[str, Schema] = endpoint.request.get("$defs", {})
    if not request["properties"]:
        head = [f"    async def {method}(self) -> {_shown(endpoint, returns)}:"]
        return [*head, *_doc(endpoint), *_call(contract, endpoint, "{}", returns, types)]
    struct = types.annotation({**request, "$defs": {}}, definitions, str(request["title"]))
    tag = types.tag_of(request, definitions)
    fields = [each for each in types.fields(request, definitions, str(request["title"])) if each[0] != tag]
    if not fields:  # but a tag
        head = [f"    async def {method}(self) -> {_shown(endpoint, returns)}:"]
        return [*head, *_doc(endpoint), *_call(contract, endpoint, f"{struct}()", returns, types)]
    head = [f"    async def {method}(", "        self,", "        *,"]
    given = []
    for _, field, annotation, default in sorted(fields, key=lambda each: each[3] is not None):
        made = default in ("[]", "{}")  # a parameter's default is one object for all calls
        wider = f"{annotation} | msgspec.UnsetType" if made else annotation
        shown = UNSET if made else default
        head.append(f"        {field}: {wider}{'' if shown is None else f' = {shown}'},")
        value = f"{default} if {field} is msgspec.UNSET else {field}" if made else field
        given.append(f"    {field}={value},")
    head.append(f"    ) -> {_shown(endpoint, returns)}:")
    payload = "\n".join([f"{struct}(", *given, ")"])
    return [*head, *_doc(endpoint), *_call(contract, endpoint, payload, returns, types, {each[1] for each in fields})]


def _shown(endpoint: Endpoint, returns: str) -> str:
    return f"AsyncGenerator[{returns}, None]" if endpoint.stream else returns


def _doc(endpoint: Endpoint) -> list[str]:
    return docstring(endpoint.doc, "        ", f"Call '{endpoint.name}'")


def _call(
    contract: Contract, endpoint: Endpoint, payload: str, returns: str, types: Types, fields: Collection[str] = ()
) -> list[str]:
    """Write the call. What comes back was decoded into `returns`, which a type checker cannot see."""
    kind = ("stream", "request_stream") if endpoint.stream else ("call", "request")
    if endpoint.subject == f"rpc.{contract.service}.{endpoint.name}":
        function, where = kind[0], [literal(contract.service), literal(endpoint.name)]
    else:
        function, where = kind[1], [literal(endpoint.subject)]
    expected = {"Any": "None", "None": "type(None)"}.get(returns, returns)
    given = [*where, payload, f"returns={expected}", "timeout=self._timeout"]
    call = [f"self._caller.{function}(", *(f"    {line}" for each in given for line in f"{each},".split("\n")), ")"]
    errors = [types.errors[each.type] for each in endpoint.errors if each.type in types.errors]
    result, items, item = (unique_name(each, fields) for each in ("result", "items", "item"))
    if endpoint.stream:
        loop = [
            f"async with contextlib.aclosing({items}):",
            f"    async for {item} in {items}:",
            f"        yield {item}",
        ]
        lines = [f"{items} = {call[0]}", *call[1:], *_translated(loop, errors, fields)]
    elif returns == "None" or (returns == "Any" and not errors):
        start = "" if returns == "None" else "return "
        lines = _translated([f"{start}await {call[0]}", *call[1:]], errors, fields)
    else:
        made = [f"{result}: {returns} = await {call[0]}", *call[1:]]
        lines = [*_translated(made, errors, fields), f"return {result}"]
    return [f"        {each}" for each in lines]


def _translated(lines: list[str], errors: list[str], fields: Collection[str]) -> list[str]:
    """Write what raises the service's own errors under their classes here."""
    if not errors:
        return lines
    error = unique_name("error", fields)
    given = [error, *errors]
    raised = [f"    raise_as({', '.join(given)})"]
    if len(raised[0]) > 112:
        raised = ["    raise_as(", *(f"        {each}," for each in given), "    )"]
    return ["try:", *(f"    {each}" for each in lines), f"except CliffracerError as {error}:", *raised]
