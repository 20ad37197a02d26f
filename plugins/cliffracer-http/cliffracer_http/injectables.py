"""What handlers may ask for by annotation: the `Request`, and uploaded files."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from cliffracer_core.interfaces import Resolver

from .endpoint import request_of
from .forms import UploadResolver
from .uploads import UploadFile, Uploads

__all__ = ["injectables"]


def injectables() -> Mapping[type, Resolver]:
    """Return type to resolver."""
    upload = UploadResolver()
    return {Request: request_of, UploadFile: upload, Uploads: upload}
