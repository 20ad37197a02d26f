"""The pages at `/docs`: Swagger UI's, and a plain one of our own where that is not installed."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["SWAGGER_PAGE", "plain_page"]

SWAGGER_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { background: #f4f4f4; padding: 0.5rem; overflow-x: auto; }
details { border: 1px solid #ccc; border-radius: 4px; margin: 0.5rem 0; padding: 0.5rem 1rem; }
summary { cursor: pointer; }
table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; }
.gone { text-decoration: line-through; }
"""


def plain_page(document: Mapping[str, Any]) -> bytes:
    """Render an OpenAPI document as HTML that needs no script."""
    info = document["info"]
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(info["title"])}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
        f"<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>",
        _paragraphs(info.get("description", "")),
        '<p><a href="openapi.json">openapi.json</a></p>',
        *(
            part
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            for part in _operation(path, method, operation)
        ),
        "<h2>Schemas</h2>",
    ]
    for name, schema in document["components"]["schemas"].items():
        parts.append(
            f'<details id="{_text(name)}"><summary><code>{_text(name)}</code></summary>{_json(schema)}</details>'
        )
    return "\n".join([*parts, "</body>\n</html>\n"]).encode()


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    gone = ' class="gone"' if operation.get("deprecated") else ""
    yield (
        f'<details id="{_text(operation["operationId"])}"><summary><code{gone}>{method.upper()} {_text(path)}</code> '
        f"{_text(operation.get('summary', ''))}</summary>"
    )
    yield _paragraphs(operation.get("description", ""))
    if "parameters" in operation:
        yield "<h3>Parameters</h3>\n<table>"
        for each in operation["parameters"]:
            needed = "required" if each.get("required") else ""
            cells = (each["name"], each["in"], needed, each.get("description", ""))
            row = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
            yield f"<tr>{row}<td><code>{_text(json.dumps(each['schema']))}</code></td></tr>"
        yield "</table>"
    if "requestBody" in operation:
        yield f"<h3>Body</h3>\n{_content(operation['requestBody'])}"
    yield "<h3>Responses</h3>"
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            yield f"<p><b>{_text(status)}</b> {_text(response['description'])}</p>{_content(response)}"
    yield "</details>"


def _content(body: Mapping[str, Any]) -> str:
    """Render what a body is, once for all content types that have one schema."""
    shown: dict[str, list[str]] = {}
    for name, media in body.get("content", {}).items():
        shown.setdefault(_json(media), []).append(name)
    return "".join(f"<p>{_text(', '.join(names))}</p>{media}" for media, names in shown.items())


def _json(value: Any) -> str:
    return f"<pre>{_text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(each)}</p>" for each in text.split("\n\n") if each)


def _text(text: str) -> str:
    return html.escape(str(text))
