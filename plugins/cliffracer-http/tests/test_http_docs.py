"""`/openapi.json` and `/docs`: what is there, and for whom."""

from __future__ import annotations

import base64
import html.parser
import importlib.util
import re
from typing import Any

import pytest
from cliffracer_http import HttpSettings, get
from cliffracer_http.docs import swagger_files
from openapi_spec_validator import validate

from cliffracer_core import CliffracerService, ServiceConfig

Serve = Any
PATHS = ["/openapi.json", "/docs", "/docs/swagger-ui.css", "/docs/swagger-ui.js", "/docs/start.js"]


def routes(document: Any) -> list[str]:
    """Return the paths of a document, without those of health."""
    return [path for path in document["paths"] if not path.startswith("/health")]


class Users(CliffracerService):
    """A service."""

    name = "users"

    @get("/users/{id}")
    async def find(self, id: int) -> str:
        """Find <b>one</b> & all."""
        return str(id)


async def test_document_is_served_as_the_service_describes_itself(serve: Serve) -> None:
    """What is read by HTTP is what `service.openapi()` gives."""
    service: Any = Users(ServiceConfig("users", http={"port": 0, "server": "uvicorn", "prefix": "/v1"}))
    client = await serve(service)
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == await service.openapi()
    assert routes(response.json()) == ["/v1/users/{id}"]


async def test_page_needs_nothing_from_elsewhere(serve: Serve) -> None:
    """All that Swagger UI's page loads comes from the service, and the policy forbids the rest."""
    client = await serve(Users)
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert links == ["data:,", "docs/swagger-ui.css", "docs/swagger-ui.js", "docs/start.js"]
    for link, kind, least in zip(links[1:], ("css", "javascript", "javascript"), (10_000, 500_000, 50), strict=True):
        response = await client.get(page.url.join(link))
        assert response.status_code == 200
        assert kind in response.headers["content-type"]
        assert len(response.content) >= least
    assert "openapi.json" in response.text
    head = await client.head("/docs")
    assert (head.status_code, head.content) == (200, b"")


async def test_page_is_plain_where_swagger_ui_is_not_installed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells the same without a script, and what services wrote is text, not markup."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flask_swagger_ui" else find(name))
    swagger_files.cache_clear()
    try:
        client = await serve(Users)
        page = (await client.get("/docs")).text
        assert (await client.get("/docs/swagger-ui.js")).status_code == 404
    finally:
        swagger_files.cache_clear()
    assert "<script" not in page
    assert "GET /users/{id}" in page
    assert "Find &lt;b&gt;one&lt;/b&gt; &amp; all." in page
    opened: list[str] = []

    class Balanced(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "link"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balanced().feed(page)
    assert opened == []


@pytest.mark.parametrize("path", PATHS)
async def test_pages_are_closed_off_loopback_without_a_token(serve: Serve, path: str) -> None:
    """A service that listens for others shows its inside to nobody."""
    client = await serve(Users, http={"host": "0.0.0.0"})
    response = await client.get(path.replace("0.0.0.0", "127.0.0.1"))
    assert response.status_code == 403
    assert "http.guard_token" in response.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("path", PATHS)
async def test_pages_open_with_the_token_for_programs_and_browsers(serve: Serve, path: str, host: str) -> None:
    """As a bearer token, or as the password that a browser asks for; a wrong one does not."""
    client = await serve(Users, http={"host": host, "guard_token": "s3cret"})
    refused = await client.get(path)
    assert refused.status_code == 401
    assert "Basic" in refused.headers["www-authenticate"]
    for given in ("Bearer s3cret", "Basic " + base64.b64encode(b"me:s3cret").decode()):
        assert (await client.get(path, headers={"authorization": given})).status_code == 200
    for given in ("Bearer x", "Basic " + base64.b64encode(b"s3cret:x").decode(), "Basic ***", "Basic"):
        assert (await client.get(path, headers={"authorization": given})).status_code == 401


async def test_pages_are_for_all_or_nobody_where_settings_say_so(serve: Serve) -> None:
    """`public` opens them off loopback too, `off` takes them away."""
    client = await serve(Users, http={"host": "0.0.0.0", "docs": "public"})
    assert [(await client.get(each)).status_code for each in PATHS] == [200] * 5
    client = await serve(Users, http={"docs": "off"})
    assert [(await client.get(each)).status_code for each in PATHS] == [404] * 5
    assert HttpSettings().docs == "guarded"


async def test_route_of_a_service_wins_over_the_page(serve: Serve) -> None:
    """A service may have a `/docs` of its own."""

    class Own(CliffracerService):
        @get("/docs")
        async def docs(self) -> str:
            return "mine"

    client = await serve(Own)
    assert (await client.get("/docs")).json() == "mine"
    assert (await client.get("/openapi.json")).status_code == 200


async def test_services_on_one_port_are_one_document(serve: Serve, free_port: Any) -> None:
    """All that the port answers; a service that keeps its docs off is not told of."""

    class Orders(CliffracerService):
        @get("/orders")
        async def find(self) -> list[str]:
            return []

    class Secrets(CliffracerService):
        @get("/secrets")
        async def find(self) -> list[str]:
            return []

    http = {"port": free_port(), "server": "uvicorn"}
    client = await serve(Users(ServiceConfig("users", http=http)))
    assert routes((await client.get("/openapi.json")).json()) == ["/users/{id}"]
    await serve(Orders(ServiceConfig("orders", http=http)))
    await serve(Secrets(ServiceConfig("secrets", http={**http, "docs": "off"})))
    document = (await client.get("/openapi.json")).json()
    validate(document)
    assert routes(document) == ["/users/{id}", "/orders"]
    assert document["info"]["title"] == "users, orders"
