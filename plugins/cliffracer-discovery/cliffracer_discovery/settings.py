"""`DiscoverySettings`, the plugin's section."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["DiscoverySettings"]


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether, where and how exactly a service tells of itself."""

    enabled: bool = True
    """Answer, and count requests."""
    transport: str = "default"
    """The transport answered on; endpoints of other transports are not listed."""
    window: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """The percentiles are those of an endpoint's last so many requests; 40 bytes each."""
