"""pytest fixtures for Cliffracer: running services, replaced providers, recorded events, embedded servers.

Importing this imports nothing of the kernel, so that coverage, which starts after pytest's plugins are
loaded, sees the kernel's own lines.
"""

from .events import Event, EventRecorder, Events
from .services import ServiceFactory

__all__ = ["Event", "EventRecorder", "Events", "ServiceFactory"]
