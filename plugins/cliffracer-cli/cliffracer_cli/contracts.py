"""`Contract`: what a service can be asked, from what it says of itself; saved, compared, and made into clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cliffracer_core.client import ClientProxy
from cliffracer_core.errors import ConfigurationError, NoHandler, ServiceError

if TYPE_CHECKING:
    from cliffracer_discovery import InfoResponse

__all__ = ["Contract", "Endpoint", "Failure", "Schema", "fetch_contract", "read_contract", "require_discovery"]
__all__ += ["alternatives", "resolved"]

Schema = Mapping[str, Any]
"""A JSON Schema (draft 2020-12); an empty one says nothing."""


class Failure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An error that an endpoint says it raises."""

    type: str
    """Its code on the wire."""
    name: str = ""
    status: int = 500
    retryable: bool = False
    doc: str = ""


class Endpoint(msgspec.Struct, kw_only=True):
    """One thing a service can be asked."""

    name: str
    subject: str
    doc: str = ""
    request: dict[str, Any] = {}
    """The JSON Schema of the arguments; empty where the service does not tell."""
    response: dict[str, Any] = {}
    """That of the result; of one item where it streams."""
    stream: bool = False
    errors: list[Failure] = []


class Contract(msgspec.Struct, kw_only=True):
    """What a service can be asked, endpoints by subject."""

    service: str
    version: str = ""
    description: str = ""
    endpoints: list[Endpoint] = []

    def to_json(self) -> bytes:
        """Return indented JSON, the same for the same contract."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


def require_discovery() -> None:
    """Check that `cliffracer-discovery` is there. Raises ConfigurationError."""
    try:
        import cliffracer_discovery  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "cliffracer_discovery":
            raise
        raise ConfigurationError("cliffracer-discovery is not installed; pip install cliffracer-discovery") from None


async def fetch_contract(client: ClientProxy, name: str, timeout_s: float) -> Contract:
    """Ask a running service for its contract; what is doubtful about it is said on stderr.

    Raises:
        NoHandler: nobody of that name answered; a retry helps once somebody runs.
        ServiceError: its instances answer differently, as in the middle of a rollout; a retry helps later.
    """
    from cliffracer_discovery import discover

    answers = await discover(client, "INFO", name=name, timeout_s=timeout_s)
    if not answers:
        raise NoHandler(
            f"service {name!r} did not answer within {timeout_s:g} s; start it with cliffracer-discovery installed"
        )
    contracts = [_contract(each) for each in answers]
    if any(each != contracts[0] for each in contracts[1:]):
        versions = ", ".join(sorted({each.version for each in contracts}))
        raise ServiceError(
            f"service {name!r} has {len(answers)} instances with different contracts (versions {versions}); "
            f"try again when they are the same"
        )
    bare = [each.name for each in contracts[0].endpoints if not each.request and not each.response]
    if bare:
        click.echo(f"warning: no schemas of {', '.join(bare)}; they are taken to accept and return anything", err=True)
    return contracts[0]


def read_contract(path: Path) -> Contract:
    """Read a saved contract. Raises click.UsageError where the file is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Contract)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.UsageError(
            f"file {str(path)!r} holds no contract: {reason}; write one with 'cliffracer contract save'"
        ) from None


def resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Follow a schema's `$ref`; one that leads nowhere or in a circle says nothing."""
    seen: set[str] = set()
    while "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        if name in seen or name not in definitions:
            return {}
        seen.add(name)
        schema = definitions[name]
    return schema


def alternatives(schema: Schema, definitions: Mapping[str, Schema], depth: int = 0) -> list[Schema]:
    """Return the members of a union, those of unions in it too; of what is none, itself."""
    schema = resolved(schema, definitions)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts and depth < 20:
        return [each for part in parts for each in alternatives(part, definitions, depth + 1)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": each} for each in schema["type"]]
    return [schema]


def _contract(answer: InfoResponse) -> Contract:
    endpoints: Sequence[Endpoint] = [
        Endpoint(
            name=each.name,
            subject=each.subject,
            doc=each.metadata.get("doc", ""),
            request=_schema(each.metadata.get("schema.request")),
            response=_schema(each.metadata.get("schema.response")),
            stream=each.metadata.get("stream") == "true",
            errors=_errors(each.metadata.get("errors")),
        )
        for each in answer.endpoints
    ]
    return Contract(
        service=answer.name,
        version=answer.version,
        description=answer.description,
        endpoints=sorted(endpoints, key=lambda each: (each.subject, each.name)),
    )


def _schema(text: str | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:  # another framework's
        return {}


def _errors(text: str | None) -> list[Failure]:
    try:
        return sorted(msgspec.json.decode(text or "[]", type=list[Failure]), key=lambda each: each.type)
    except msgspec.MsgspecError:
        return []
