"""The live example in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cliffracer_websocket.plugin import WebSocketPlugin
from playwright.async_api import Browser, Page, async_playwright, expect

from cliffracer_core import ServiceConfig

LIVE = Path(__file__).parent.parent / "docs" / "examples" / "live"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium; CI installs it, and must."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip)("chromium is not installed")
    async with async_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        await browser.close()


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The example's service on a free port."""
    monkeypatch.syspath_prepend(str(LIVE))
    from live import Live

    async with Live(ServiceConfig("live", http={"port": 0})) as service:
        yield service
    del sys.modules["live"]


async def open_page(browser: Browser, url: str, problems: list[str]) -> Page:
    page = await browser.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(url)
    await expect(page.locator("#state")).to_have_text("live")
    return page


async def test_every_page_shows_orders_as_they_change(browser: Browser, service: Any) -> None:
    """What one page orders and what becomes of it stands in all pages, without a reload; also after a break."""
    problems: list[str] = []
    one = await open_page(browser, service.http.url, problems)
    two = await open_page(browser, service.http.url, problems)
    await one.fill("input", "<b>books</b>")
    await one.click("button")
    for page in (one, two):
        await expect(page.locator("#order-1 td")).to_have_text(["1", "<b>books</b>", "new"])
    await service.publish("order.paid", {"id": 1, "item": "<b>books</b>", "status": "paid"})
    for page in (one, two):
        await expect(page.locator("#order-1 td").last).to_have_text("paid")

    (plugin,) = (each for each in service.runtime.plugins.manager.get_plugins() if isinstance(each, WebSocketPlugin))
    sockets = plugin._running[service.info.id]
    for socket in list(sockets.connections):
        socket.abort()
    await service.publish("order.created", {"id": 2, "item": "ink"})
    for page in (one, two):
        await expect(page.locator("#order-2 td")).to_have_text(["2", "ink", "new"])
        await expect(page.locator("#state")).to_have_text("live")
    assert problems == []
