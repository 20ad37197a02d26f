"""HTTP for Cliffracer: typed routes on any ASGI server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import Application
    from .errors import KeyReused, MethodNotAllowed, NotAcceptable, RequestTimeout, UnsupportedMediaType
    from .etags import etag_of
    from .marks import RouteOptions, delete, get, head, options, patch, post, put, route
    from .model import BodyModel, Parameter, RouteModel
    from .params import Body, Cookie, File, Form, Header, Path, Query
    from .problems import Problem
    from .responses import (
        Event,
        FileResponse,
        HTMLResponse,
        PlainTextResponse,
        RedirectResponse,
        Reply,
        Request,
        Response,
        StreamingResponse,
    )
    from .settings import CorsSettings, HttpSettings
    from .uploads import UploadFile, Uploads

__all__ = [
    "Application",
    "Body",
    "BodyModel",
    "Cookie",
    "CorsSettings",
    "Event",
    "File",
    "FileResponse",
    "Form",
    "HTMLResponse",
    "Header",
    "HttpSettings",
    "KeyReused",
    "MethodNotAllowed",
    "NotAcceptable",
    "Parameter",
    "Path",
    "PlainTextResponse",
    "Problem",
    "Query",
    "RedirectResponse",
    "Reply",
    "Request",
    "RequestTimeout",
    "Response",
    "RouteModel",
    "RouteOptions",
    "StreamingResponse",
    "UnsupportedMediaType",
    "UploadFile",
    "Uploads",
    "delete",
    "etag_of",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "route",
]

_FROM = {
    "application": ("Application",),
    "errors": (
        "KeyReused",
        "MethodNotAllowed",
        "NotAcceptable",
        "RequestTimeout",
        "UnsupportedMediaType",
    ),
    "etags": ("etag_of",),
    "marks": (
        "RouteOptions",
        "delete",
        "get",
        "head",
        "options",
        "patch",
        "post",
        "put",
        "route",
    ),
    "model": (
        "BodyModel",
        "Parameter",
        "RouteModel",
    ),
    "params": (
        "Body",
        "Cookie",
        "File",
        "Form",
        "Header",
        "Path",
        "Query",
    ),
    "problems": ("Problem",),
    "responses": (
        "Event",
        "FileResponse",
        "HTMLResponse",
        "PlainTextResponse",
        "RedirectResponse",
        "Reply",
        "Request",
        "Response",
        "StreamingResponse",
    ),
    "settings": (
        "CorsSettings",
        "HttpSettings",
    ),
    "uploads": (
        "UploadFile",
        "Uploads",
    ),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> object:  # PEP 562: the plugin is loaded in every process, Starlette only where it is used
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
