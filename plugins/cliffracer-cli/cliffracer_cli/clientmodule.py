"""Writing a typed client: a module with the types of a service's contract, and a class with its methods."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .contracts import Contract, Endpoint, Schema, resolved
from .naming import class_name, docstring, identifier, unique_name
from .pythontypes import UNSET, Types, literal

__all__ = ["client_module"]

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
    methods: dict[str, list[str]] = {}
    for endpoint in contract.endpoints:
        method = unique_name(identifier(endpoint.name, "call"), methods)
        methods[method] = _method(contract, endpoint, method, types)
    about = contract.description or f"A client of service '{contract.service}'"
    lines = [f"class {name}:", *docstring(about, "    ", "A client"), *_INIT.rstrip("\n").split("\n")]
    for each in methods.values():
        lines += ["", *each]
    body = "\n\n\n".join("\n".join(block) for block in [*types.blocks, lines])
    version = f", version {contract.version}" if contract.version else ""
    about = f"Typed client of service '{contract.service}'{version}, written by 'cliffracer client'; do not edit"
    return "\n".join([*docstring(about, "", ""), "", _HEAD, *_imports(body), "", "", body, ""])


def _imports(body: str) -> list[str]:
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    standard = [f"import {each}" for each in ("datetime", "decimal", "enum", "uuid") if each in used]
    names = [each for each in ("Any", "Literal") if each in used]
    if names:
        standard.append(f"from typing import {', '.join(names)}")
    foreign = ["import msgspec"] if "msgspec" in used else []
    return [*standard, *([""] if standard else []), *foreign, "from cliffracer_core.caller import Caller"]


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
    signature = [f"    async def {method}(self, payload: {annotation.removesuffix(' | None')}{default}) -> {returns}:"]
    return [*signature, *_doc(endpoint), *_call(contract, endpoint, "payload", returns)]


def _spread(
    contract: Contract, endpoint: Endpoint, method: str, types: Types, request: Schema, returns: str
) -> list[str]:
    """Write a method that takes an object's fields by name."""
    definitions: Mapping[str, Schema] = endpoint.request.get("$defs", {})
    if not request["properties"]:
        head = [f"    async def {method}(self) -> {returns}:"]
        return [*head, *_doc(endpoint), *_call(contract, endpoint, "{}", returns)]
    struct = types.annotation({**request, "$defs": {}}, definitions, str(request["title"]))
    tag = types.tag_of(request, definitions)
    fields = [each for each in types.fields(request, definitions, str(request["title"])) if each[0] != tag]
    if not fields:  # but a tag
        head = [f"    async def {method}(self) -> {returns}:"]
        return [*head, *_doc(endpoint), *_call(contract, endpoint, f"{struct}()", returns)]
    head = [f"    async def {method}(", "        self,", "        *,"]
    given = []
    for _, field, annotation, default in sorted(fields, key=lambda each: each[3] is not None):
        made = default in ("[]", "{}")  # a parameter's default is one object for all calls
        wider = f"{annotation} | msgspec.UnsetType" if made else annotation
        shown = UNSET if made else default
        head.append(f"        {field}: {wider}{'' if shown is None else f' = {shown}'},")
        value = f"{default} if {field} is msgspec.UNSET else {field}" if made else field
        given.append(f"                {field}={value},")
    head.append(f"    ) -> {returns}:")
    payload = "\n".join([f"{struct}(", *given, "            )"])
    result = unique_name("result", {field for _, field, _, _ in fields})
    return [*head, *_doc(endpoint), *_call(contract, endpoint, payload, returns, result)]


def _doc(endpoint: Endpoint) -> list[str]:
    return docstring(endpoint.doc, "        ", f"Call '{endpoint.name}'")


def _call(contract: Contract, endpoint: Endpoint, payload: str, returns: str, result: str = "result") -> list[str]:
    """Write the call. What comes back was decoded into `returns`, which a type checker cannot see."""
    if endpoint.subject == f"rpc.{contract.service}.{endpoint.name}":
        function, where = "call", [literal(contract.service), literal(endpoint.name)]
    else:
        function, where = "request", [literal(endpoint.subject)]
    expected = {"Any": "None", "None": "type(None)"}.get(returns, returns)
    given = [*where, payload, f"returns={expected}", "timeout=self._timeout"]
    start = {"Any": "return ", "None": ""}.get(returns, f"{result}: {returns} = ")
    lines = [f"        {start}await self._caller.{function}(", *(f"            {each}," for each in given), "        )"]
    return lines if returns in ("Any", "None") else [*lines, f"        return {result}"]
