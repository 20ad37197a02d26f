"""The section `http`."""

from __future__ import annotations

from cliffracer_http.settings import HttpSettings, settings_of

from cliffracer_core import CliffracerService, ServiceConfig


async def test_section_and_flat_names_reach_the_service_when_they_are_set() -> None:
    """`http={...}` and `http_port=` set one section."""
    async with CliffracerService(ServiceConfig("web", http={"host": "::1"}, http_port=0)) as service:
        assert settings_of(service.info) == HttpSettings(host="::1", port=0)
