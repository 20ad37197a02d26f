"""A service's RPC methods and events as AsyncAPI 3.0, from its declarations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cliffracer_core.docstrings import Docstring, parse_docstring
from cliffracer_core.errors import ErrorBody
from cliffracer_core.handlers import Declaration, EventOptions, RpcOptions
from cliffracer_core.interfaces import Signature, Wiring
from cliffracer_core.messages import CORRELATION_ID, SERVICE_ERROR, SERVICE_ERROR_CODE, TIMEOUT_MS
from cliffracer_core.requests import QUEUE_GROUP
from cliffracer_core.schemas import Schemas
from cliffracer_core.subjects import stream_name
from cliffracer_core.validation import Arguments

from .draft7 import older

__all__ = ["asyncapi_document"]

Json = dict[str, Any]
_TEXT = {"type": "string"}
_HEADERS = {
    "Request": {CORRELATION_ID: _TEXT, TIMEOUT_MS: {"type": "string", "pattern": "^[0-9]+$"}},
    "Event": {CORRELATION_ID: _TEXT},
    "Error": {SERVICE_ERROR: _TEXT, SERVICE_ERROR_CODE: {"type": "string", "pattern": "^[0-9]+$"}},
}
_FOR_EVENTS = ("retries", "backoff_s", "max_backoff_s", "ack_wait_s")


def asyncapi_document(wiring: Wiring, *, urls: Mapping[str, str] | None = None) -> Json:
    """Describe a service as AsyncAPI 3.0, as plain data.

    What it answers and hears is known from its handlers; what it publishes and whom it calls is not.

    Args:
        wiring: the compiled service, as `await service.wiring()` gives it.
        urls: of its transports, by name, to be listed as servers; credentials are left out.
    """
    return _Document(wiring, urls or {}).made()


class _Document:
    def __init__(self, wiring: Wiring, urls: Mapping[str, str]) -> None:
        self._wiring = wiring
        self._schemas = Schemas()
        self._servers = dict(_servers(urls))
        self._channels: dict[str, Json] = {}
        self._operations: dict[str, Json] = {}
        self._messages: dict[str, Json] = {}

    def made(self) -> Json:
        for declaration in self._wiring.declarations:
            docs = parse_docstring(declaration.doc)
            signature = self._wiring.signatures[declaration.name]
            for each in declaration.find("core"):
                if isinstance(each.options, RpcOptions):
                    self._answers(declaration, signature, docs, each.options)
                elif isinstance(each.options, EventOptions):
                    self._hears(declaration, signature, docs, each.options)
        if "Error" in self._messages:
            self._messages["Error"]["payload"] = self._schemas.add(ErrorBody)
        service = self._wiring.service
        info = {"title": service.name, "version": service.version}
        schemas = self._schemas.fill()
        for each in self._messages.values():
            each["payload"] = older(each["payload"])
        return {
            "asyncapi": "3.0.0",
            "info": {**info, "description": service.description} if service.description else info,
            "defaultContentType": "application/json",
            **({"servers": self._servers} if self._servers else {}),
            "channels": self._channels,
            "operations": self._operations,
            "components": {"schemas": older(schemas), "messages": self._messages},
        }

    def _answers(self, declaration: Declaration, signature: Signature, docs: Docstring, options: RpcOptions) -> None:
        name = _unique(declaration.name, self._operations)
        arguments, result = f"{name}.arguments", f"{name}.result"
        self._message(arguments, "Request", self._arguments(signature, docs), [e.arguments for e in docs.examples])
        self._messages[arguments]["correlationId"] = {"location": f"$message.header#/{CORRELATION_ID}"}
        self._message(result, None, self._schemas.add(signature.returns), [e.result for e in docs.examples])
        self._messages.setdefault("Error", _message("Error", "An error, in place of a result"))
        subject = f"rpc.{options.pattern or declaration.where}"
        self._channel(name, subject, options.transport, [arguments])
        self._channels[f"{name}.reply"] = {
            "address": None,
            "description": "The subject that the request names for its reply",
            "messages": {"result": _message_ref(result), "error": _message_ref("Error")},
        }
        if docs.returns:
            self._messages[result]["description"] = docs.returns
        self._operation(name, docs, QUEUE_GROUP, [arguments], {
            "reply": {
                "channel": {"$ref": f"#/channels/{name}.reply"},
                "messages": [{"$ref": f"#/channels/{name}.reply/messages/{each}"} for each in ("result", "error")],
            },
            **({"x-errors": dict(docs.raises)} if docs.raises else {}),
            **({"x-strict": True} if options.strict else {}),
            **({"x-streams": True} if signature.streams else {}),
            "x-timeout-s": options.timeout or self._wiring.timeout_s,
        })  # fmt: skip

    def _hears(self, declaration: Declaration, signature: Signature, docs: Docstring, options: EventOptions) -> None:
        name = _unique(declaration.name, self._operations)
        payload = f"{name}.payload"
        self._message(payload, "Event", self._arguments(signature, docs), [e.arguments for e in docs.examples])
        self._channel(name, options.pattern, options.transport, [payload])
        group = None if options.fanout else options.queue or declaration.where
        more: Json = {"x-fanout": True} if options.fanout else {}
        if options.durable:
            service = self._wiring.service.name
            more = {
                "x-durable": group,
                "x-stream": options.stream or stream_name(options.pattern),
                **{f"x-{each.replace('_', '-')}": getattr(options, each) for each in _FOR_EVENTS},
                "x-dead-letter": f"dlq.{service}.{declaration.name}",
            }
            group = None
        if options.timeout is not None:
            more["x-timeout-s"] = options.timeout
        self._operation(name, docs, group, [payload], more)

    def _arguments(self, signature: Signature, docs: Docstring) -> Json:
        if getattr(signature.arguments, "__module__", "") == Arguments.__module__:  # made for this handler
            return self._schemas.object(signature.arguments, docs.arguments)
        return self._schemas.add(signature.arguments)

    def _message(self, name: str, headers: str | None, payload: Json, examples: list[Any]) -> None:
        given = [{"payload": each} for each in examples if each is not msgspec.UNSET]
        self._messages[name] = {
            **_message(headers, ""),
            "name": name,
            "payload": payload,
            **({"examples": given} if given else {}),
        }

    def _channel(self, name: str, subject: str, transport: str, messages: list[str]) -> None:
        address, parameters = _address(subject)
        channel: Json = {
            "address": address,
            "messages": {each.partition(".")[2]: _message_ref(each) for each in messages},
        }
        if parameters:
            channel |= {"parameters": parameters, "x-subject": subject}
        if transport in self._servers:
            channel["servers"] = [{"$ref": f"#/servers/{transport}"}]
        self._channels[name] = channel

    def _operation(self, name: str, docs: Docstring, group: str | None, messages: list[str], more: Json) -> None:
        operation: Json = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{each.partition('.')[2]}"} for each in messages],
        }
        if docs.summary:
            operation["summary"] = docs.summary
        if docs.description:
            operation["description"] = docs.description
        if group is not None:
            operation["x-queue-group"] = group
            operation["bindings"] = {"nats": {"queue": group}}
        self._operations[name] = {**operation, **more}


def _message(headers: str | None, title: str) -> Json:
    message: Json = {"title": title} if title else {}
    if headers is not None:
        message["headers"] = {"type": "object", "properties": dict(_HEADERS[headers])}
    return message


def _message_ref(name: str) -> Json:
    return {"$ref": f"#/components/messages/{name}"}


def _address(subject: str) -> tuple[str, Json]:
    """Return a subject with its wildcards as parameters: `order.*` as `order.{token1}`, `>` as `{rest}`."""
    parameters: Json = {}
    tokens: list[str] = []
    for token in subject.split("."):
        if token in ("*", ">"):
            name = "rest" if token == ">" else f"token{len(parameters) + 1}"
            parameters[name] = {"description": "all tokens that are left" if token == ">" else "one token"}
            token = f"{{{name}}}"
        tokens.append(token)
    return ".".join(tokens), parameters


def _servers(urls: Mapping[str, str]) -> Iterator[tuple[str, Json]]:
    for name, url in urls.items():
        parts = urlsplit(url.partition(",")[0])
        host = parts.netloc.rpartition("@")[2]
        if host and re.fullmatch(r"[A-Za-z0-9_\-]+", name):
            yield name, {"host": host, "protocol": parts.scheme}


def _unique(name: str, known: Mapping[str, Any]) -> str:
    number, chosen = 1, name
    while chosen in known:
        number += 1
        chosen = f"{name}_{number}"
    return chosen
