"""Folders of files, and a single-page application's pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse as StarletteFileResponse
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from cliffracer_core.errors import ConfigurationError

from .files import FileResponse
from .matcher import is_broken, parameters_of

__all__ = ["Files", "SinglePage", "static_routes"]

_INDEX = "index.html"


class Files(StaticFiles):
    """A folder whose files are sent as `FileResponse` sends them."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Any, status_code: int = 200) -> Response:
        """Return the file, or 304."""
        found = super().file_response(full_path, stat_result, scope, status_code)
        if not isinstance(found, StarletteFileResponse):
            return found
        return FileResponse(full_path, status_code=status_code, stat_result=stat_result)


class SinglePage(Files):
    """A folder whose `index.html` answers for every page that is no file, as its own router expects."""

    async def get_response(self, path: str, scope: Any) -> Response:
        """Return the file, else the index for a browser that asks for a page.

        Raises:
            HTTPException: 404, where a path that looks like a file is none, or no page is asked for.
        """
        try:
            return await super().get_response(_INDEX if path == "." else path, scope)
        except HTTPException as error:
            accepts = b",".join(value for name, value in scope["headers"] if name == b"accept")
            page = b"text/html" in accepts and "." not in path.rpartition("/")[2] and not is_broken(path)
            if error.status_code != 404 or not page:
                raise
            response = await super().get_response(_INDEX, scope)
            response.headers["cache-control"] = "no-cache"  # a new version must be seen under every path
            return response


def static_routes(static: Mapping[str, str], spa: str | None) -> list[BaseRoute]:
    """Return what serves the configured folders, the single-page application last.

    Raises:
        ConfigurationError: a folder that does not exist, or a path that is none.
    """
    routes: list[BaseRoute] = []
    for path, folder in static.items():
        if parameters_of(path):
            raise ConfigurationError(f"http.static: path {path!r} has parameters; name a plain one such as '/assets'")
        routes.append(Mount(path.rstrip("/"), Files(directory=_folder("http.static", folder))))
    if spa is not None:
        folder = _folder("http.spa", spa)
        if not (Path(folder) / _INDEX).is_file():
            raise ConfigurationError(f"http.spa: folder {spa!r} has no {_INDEX}; build the application first")
        routes.append(Mount("", SinglePage(directory=folder)))
    return routes


def _folder(setting: str, folder: str) -> str:
    if not Path(folder).is_dir():
        raise ConfigurationError(f"{setting}: folder {folder!r} does not exist; create it, or correct the path")
    return folder
