from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from cliffracer_discovery import EndpointInfo, InfoResponse, discover
from pytest_cliffracer import ServiceFactory

from cliffracer_core import (
    ClientProxy,
    CliffracerService,
    MessageContext,
    MessagePattern,
    ServiceConfig,
    ServiceError,
    event,
    hookimpl,
    rpc,
    validated_rpc,
)
from cliffracer_core.messages import Message
from cliffracer_core.testing import unique


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


@dataclass
class Size:
    width: Annotated[int, msgspec.Meta(ge=1)]


class Session(msgspec.Struct):
    """Given to handlers by a plugin; has a schema of its own, yet is no argument."""

    user: str


class Opaque:
    """A type without a schema."""


class SessionPlugin:
    @hookimpl
    def cliffracer_register_injectables(self) -> Mapping[type, Callable[[MessageContext], object]]:
        return {Session: lambda context: Session("ada"), Opaque: lambda context: Opaque()}


class Shapes(CliffracerService):
    name = "shapes"
    version = "1.2"
    description = "all sorts of signatures"

    @rpc
    async def tree(self, node: Node, depth: int = 3) -> list[Node]:
        """Walk.

        Slowly.
        """
        return [node][:depth]

    @validated_rpc
    async def strict(self, size: Size) -> None: ...

    @rpc
    async def given(self, id: int, context: MessageContext, session: Session, extra: Opaque | None) -> Opaque:
        return Opaque()

    @MessagePattern("shape.create")
    async def whole(self, data: dict[str, int]) -> int:
        return len(data)

    @rpc
    async def untyped(self, anything): ...  # type: ignore[no-untyped-def]  # that is the case under test

    @event("shape.seen")
    async def seen(self, id: int) -> None: ...


async def info_of(source: ClientProxy) -> InfoResponse:
    (answer,) = await discover(source)
    return answer


def schemas(endpoint: EndpointInfo) -> tuple[Any, Any]:
    return json.loads(endpoint.metadata["schema.request"]), json.loads(endpoint.metadata["schema.response"])


def without_null(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(without_null, value.values()))
    return all(map(without_null, value)) if isinstance(value, list) else value is not None


async def test_info_lists_requests_when_asked(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """INFO has who it is, and each request under the subject and queue group it is really subscribed on."""
    config = ServiceConfig("shapes", metadata={"zone": "a"})
    service = await cliffracer_service(Shapes, config=config, plugins={"session": SessionPlugin()})
    info = await info_of(cliffracer_client)
    assert (info.name, info.id, info.version) == ("shapes", service.info.id, "1.2.0")
    assert (info.description, info.metadata) == ("all sorts of signatures", {"zone": "a"})
    assert [(each.name, each.subject, each.queue_group) for each in info.endpoints] == [
        ("tree", "rpc.shapes.tree", "q"),
        ("strict", "rpc.shapes.strict", "q"),
        ("given", "rpc.shapes.given", "q"),
        ("whole", "rpc.shape.create", "q"),
        ("untyped", "rpc.shapes.untyped", "q"),
    ]


async def test_metadata_describes_endpoints_when_asked(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Each endpoint has JSON Schemas of what it takes and returns, and its docstring; what has none says `{}`."""
    await cliffracer_service(Shapes, plugins={"session": SessionPlugin()})
    endpoints = {each.name: each for each in (await info_of(cliffracer_client)).endpoints}
    tree, nodes = schemas(endpoints["tree"])
    assert tree["$ref"] == "#/$defs/Arguments"
    assert tree["$defs"]["Arguments"]["required"] == ["node"]
    assert tree["$defs"]["Arguments"]["properties"]["depth"] == {"type": "integer", "default": 3}
    assert tree["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert nodes["items"] == {"$ref": "#/$defs/Node"}
    assert endpoints["tree"].metadata["doc"] == "Walk.\n\nSlowly."
    strict, nothing = schemas(endpoints["strict"])
    assert strict["$defs"]["Arguments"]["additionalProperties"] is False
    assert strict["$defs"]["Size"]["properties"]["width"] == {"type": "integer", "minimum": 1}
    assert nothing == {"type": "null"}
    assert "doc" not in endpoints["strict"].metadata
    given, opaque = schemas(endpoints["given"])
    assert set(given["$defs"]["Arguments"]["properties"]) == {"id"}
    assert opaque == {}
    assert schemas(endpoints["whole"]) == (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "integer"},
    )
    assert schemas(endpoints["untyped"])[1] == {}


class Torn(ServiceError, code="feed_torn", status=409, retryable=True):
    """The tape is torn."""


async def test_metadata_says_so_when_a_handler_streams(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """A streamed reply is marked, its response schema is that of one item, and the errors it names are told."""

    class Feed(CliffracerService):
        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            """Count.

            Raises:
                Torn: no more tape.
                ValueError: not for callers.
            """
            yield 1

        @rpc
        async def plain(self) -> int:
            return 1

    await cliffracer_service(Feed)
    endpoints = {each.name: each.metadata for each in (await info_of(cliffracer_client)).endpoints}
    assert endpoints["ticks"]["stream"] == "true"
    assert json.loads(endpoints["ticks"]["schema.response"]) == {"type": "integer"}
    assert json.loads(endpoints["ticks"]["errors"]) == [
        {"type": "feed_torn", "name": "Torn", "status": 409, "retryable": True, "doc": "The tape is torn."}
    ]
    assert not {"stream", "errors"} & endpoints["plain"].keys()


async def test_answers_hold_no_null_when_encoded(
    cliffracer_service: ServiceFactory, cliffracer_client: ClientProxy
) -> None:
    """Not one answer has a null anywhere, also where nothing was said or asked yet."""
    await cliffracer_service(CliffracerService(ServiceConfig("bare")))
    await cliffracer_service(Shapes, plugins={"session": SessionPlugin()})
    transport = cliffracer_client.caller.transport()
    for verb in ("PING", "INFO", "STATS"):
        for name in ("bare", "shapes"):
            reply = await transport.request(Message(f"$SRV.{verb}.{name}"), 5.0)
            assert without_null(json.loads(reply.body))


async def test_endpoints_are_those_of_the_transport_when_there_are_two(cliffracer_service: ServiceFactory) -> None:
    """On the transport that is set only its own endpoints are listed, since no other can be called there."""
    service = CliffracerService(ServiceConfig("both", discovery={"transport": "second"}))

    @service.rpc
    async def one() -> None: ...

    @service.handler(rpc(transport="second"))
    async def two() -> None: ...

    await cliffracer_service(service, transport={"default": "memory://one", "second": "memory://two"})
    async with ClientProxy("memory://two") as second, ClientProxy("memory://one") as first:
        assert [each.name for each in (await info_of(second)).endpoints] == ["two"]
        assert await discover(first, timeout_s=0.05) == []


def wordy() -> CliffracerService:
    """Make a service with 1,000 bytes of schemas and as many of docstring."""
    service = CliffracerService(ServiceConfig("wordy"))

    async def handler(text: Annotated[str, msgspec.Meta(description="s" * 1000)]) -> str:
        return text

    handler.__doc__ = "d" * 1000
    service.rpc(handler)
    return service


@pytest.mark.parametrize(("limit", "kept"), [(1600, {"doc"}), (800, set())])
async def test_info_is_cut_when_it_exceeds_the_payload(
    cliffracer_service: ServiceFactory, caplog: pytest.LogCaptureFixture, limit: int, kept: set[str]
) -> None:
    """An INFO that would not fit leaves out schemas, then all descriptions, and says so in a note and the log."""
    url = f"memory://{unique()}?max_payload={limit}"
    await cliffracer_service(wordy(), transport=url)
    async with ClientProxy(url) as proxy:
        info = await info_of(proxy)
    assert [each.name for each in info.endpoints] == ["handler"]
    assert set(info.endpoints[0].metadata) == kept
    assert f"exceeds the transport's {limit} bytes" in info.metadata["cliffracer.note"]
    assert "'wordy': discovery: " in caplog.text


async def test_service_still_answers_pings_when_no_info_fits(
    cliffracer_service: ServiceFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Where even the shortest INFO is too large the log says so, and the service is found all the same."""
    url = f"memory://{unique()}?max_payload=200"
    await cliffracer_service(wordy(), transport=url)
    async with ClientProxy(url) as proxy:
        assert await discover(proxy, "INFO", timeout_s=0.05) == []
        assert len(await discover(proxy, "PING")) == 1
    assert "could not be sent: message_too_large" in caplog.text
