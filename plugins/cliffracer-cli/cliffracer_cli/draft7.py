"""JSON Schemas in draft 07, which AsyncAPI takes."""

from __future__ import annotations

from typing import Any

__all__ = ["older"]


def older(schema: Any) -> Any:
    """Return a schema as draft 07 writes it: positions of arrays, and AsyncAPI's own way to tell a union apart."""
    if isinstance(schema, list):
        return [older(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: value if name in ("default", "enum", "const") else older(value) for name, value in schema.items()}
    if isinstance(schema.get("prefixItems"), list):
        found["items"] = found.pop("prefixItems")
        if "items" in schema:
            found["additionalItems"] = schema["items"]
    if isinstance(schema.get("discriminator"), dict) and "propertyName" in schema["discriminator"]:
        found["discriminator"] = schema["discriminator"]["propertyName"]
    return found
