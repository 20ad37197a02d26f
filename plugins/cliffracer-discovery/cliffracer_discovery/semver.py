"""Semantic versions. Source: https://semver.org, version 2.0.0, as ADR-32 asks for."""

from __future__ import annotations

import re

from cliffracer_core.errors import ConfigurationError

__all__ = ["normalise"]

_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD = r"[0-9a-zA-Z-]+"
# compiled when a service starts, by `re` itself: compiling them here would slow down every process's start
_SEMVER = rf"{_NUMBER}(?:\.{_NUMBER}){{2}}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+{_BUILD}(?:\.{_BUILD})*)?"
_LOOSE = r"[vV]?([0-9]{1,18})(?:\.([0-9]{1,18}))?(?:\.([0-9]{1,18}))?([-+].*|\.?(?:a|b|rc|dev|post)[0-9]*)?"


def normalise(version: str) -> str:
    """Return a version as a semantic one: `v1.2` becomes `1.2.0`, PEP 440's `1.2.0rc1` becomes `1.2.0-rc1`.

    Raises:
        ConfigurationError: it cannot be read as one.
    """
    if re.fullmatch(_SEMVER, version):
        return version
    found = re.fullmatch(_LOOSE, version)
    if found is not None:
        numbers = ".".join(str(int(part or 0)) for part in found.groups()[:3])
        rest = found[4] or ""
        if rest and rest[0] not in "-+":
            rest = ("+" if "post" in rest else "-") + rest.lstrip(".")
        if re.fullmatch(_SEMVER, numbers + rest):
            return numbers + rest
    raise ConfigurationError(
        f"version {version!r} is no semantic version, which discovery announces; write 'major.minor.patch', "
        f"such as '1.0.0', or turn it off with discovery={{'enabled': False}}"
    )
