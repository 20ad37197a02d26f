"""HTTP/3 as a service has it, and what its parts do that no client of the contract asks for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import pytest
from cliffracer_http import Body, get, post
from cliffracer_http.servers import ServerSettings, choice, make_server
from cliffracer_http.servers.h3_request import scope_of
from cliffracer_http.testing.h3_client import Http3Client
from starlette.requests import Request
from starlette.responses import Response

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.testing import eventually, unique

FULL = "full" in (os.environ.get("CLIFFRACER_FAULTS"), os.environ.get("FAULTS_FORM"))
HEAD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/a%20b?c=d")]


@pytest.fixture(autouse=True)
def no_variable_that_services_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIFFRACER_FAULTS", raising=False)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A certificate for `localhost` and its key, which is encrypted."""
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-passout", "pass:secret",
        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-out", chain, "-keyout", key,
    )  # fmt: skip
    return {"tls_cert": chain, "tls_key": key, "tls_key_password": "secret"}


class Users(CliffracerService):
    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.log: list[str] = []

    @post("/users", status_code=201)
    async def create(self, name: str) -> str:
        return name

    @get("/closing")
    async def closing(self) -> Response:
        return Response("bye", headers={"Connection": "close", "Keep-Alive": "timeout=5"})

    @get("/forever")
    async def forever(self) -> None:
        self.log.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise


async def test_service_answers_over_http3_when_it_is_set(files: dict[str, Any]) -> None:
    """Handlers, problems and health are there; a handler is cancelled with its request, and with its connection."""
    service: Any = Users(ServiceConfig(unique(), http={"port": 0, "http3": True, "max_body_bytes": 1000, **files}))
    async with service, Http3Client(service.http.url, files["tls_cert"]) as client:
        made = await client.post("/users", b'{"name": "Ada"}', headers=[(b"content-type", b"application/json")])
        assert (made.status, made.body) == (201, b'"Ada"')
        assert (await client.post("/users", bytes(1001))).status == 413
        missing = await client.get("/missing")
        assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
        assert (await client.get("/health")).status == 200
        assert (await client.get("/closing")).body == b"bye"  # HTTP/3 has no such headers, and its clients refuse them
        exchange = client.open("GET", "/forever")
        await eventually(lambda: service.log == ["begun"])
        exchange.cancel()
        await eventually(lambda: service.log == ["begun", "cancelled"])
        client.open("GET", "/forever")
        await eventually(lambda: len(service.log) == 3)
        client.vanish(say=True)
        await eventually(lambda: service.log == ["begun", "cancelled"] * 2)


PAGE = """
<p id="sum"></p>
<script>(async () => {
  const sizes = [...Array(5).keys()].map(n => fetch("/size", {method: "POST", body: "x".repeat(50000 + n)}))
  const texts = await Promise.all(sizes.map(async each => (await each).text()))
  const long = await (await fetch("/long")).text()
  document.getElementById("sum").textContent = [...texts.sort(), long.length].join(" ")
})()</script>
"""


class Pages(CliffracerService):
    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.versions: set[str] = set()

    @get("/")
    async def page(self) -> Response:
        return Response(PAGE, media_type="text/html")

    @post("/size")
    async def size(self, request: Request, body: Annotated[bytes, Body()]) -> int:
        self.versions.add(request.scope["http_version"])
        return len(body)

    @get("/long")
    async def long(self) -> Response:
        return Response(b"y" * 3_000_000)


@pytest.mark.skipif(not FULL, reason="a browser is slow; CLIFFRACER_FAULTS=full")
async def test_browser_is_served_over_http3(files: dict[str, Any], tmp_path: Path) -> None:
    """Chromium, whose QUIC is another one than ours, sends bodies and gets a long answer."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    shown = subprocess.run(["openssl", "x509", "-in", files["tls_cert"], "-pubkey", "-noout"], capture_output=True)  # noqa: ASYNC221 # in no time
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=shown.stdout, capture_output=True)  # noqa: ASYNC221 # as above
    pin = base64.b64encode(hashlib.sha256(key.stdout).digest()).decode()
    service: Any = Pages(ServiceConfig(unique(), http={"port": 0, "http3": True, **files}))
    async with service:
        port = service.http.url.rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
            f"--ignore-certificate-errors-spki-list={pin}", f"--origin-to-force-quic-on=localhost:{port}",
            "--host-resolver-rules=MAP localhost 127.0.0.1", "--virtual-time-budget=20000", "--dump-dom",
            f"https://localhost:{port}/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        page, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"50000 50001 50002 50003 50004 3000000" in page
    assert service.versions == {"3"}


async def test_start_fails_when_the_package_of_http3_is_missing(
    files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "aioquic" else object())
    with pytest.raises(ConfigurationError, match=r"install cliffracer-http\[http3\]"):
        await make_server("hypercorn").start(lambda *_: asyncio.sleep(0), ServerSettings(http3=True, **files))


async def test_workers_are_refused_when_http3_is_set(files: dict[str, Any]) -> None:
    """A QUIC connection belongs to one process; `--workers` sets `reuse_port`, and packets might reach another."""
    http = {"port": 1, "reuse_port": True, "enabled": True, "http3": True, **files}
    with pytest.raises(ConfigurationError, match="run one worker"):
        await CliffracerService(ServiceConfig(unique(), http=http)).start()


def test_scope_of_a_request_is_that_of_other_versions() -> None:
    """The authority is the host, and a cookie that came in pieces is one."""
    headers = [*HEAD, (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]
    scope = scope_of(headers, ("127.0.0.1", 1), ("127.0.0.1", 2))
    assert scope["headers"] == [(b"host", b"a.example"), (b"accept", b"*/*"), (b"cookie", b"a=1; b=2")]
    assert (scope["method"], scope["path"], scope["raw_path"], scope["query_string"]) == (
        "GET",
        "/a b",
        b"/a%20b",
        b"c=d",
    )
