"""What the services on one event loop share: the broker and the keys of each `memory://` URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar
from weakref import WeakKeyDictionary

from cliffracer_core.errors import ConfigurationError

__all__ = ["made", "parse_url", "shared", "substitute"]

T = TypeVar("T")

# The one mutable module state of the kernel: two services in one script that both say `memory://` must
# find each other, and nothing but the running loop knows of both. A loop's entry goes with the loop.
_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[type, str], object]] = WeakKeyDictionary()


def shared(kind: type[T], authority: str) -> T:
    """Return the running loop's one `kind` for a URL authority (`""` for `memory://`), made on first use."""
    loop = asyncio.get_running_loop()
    for known in [each for each in _by_loop if each.is_closed()]:
        del _by_loop[known]  # what it shared may hold futures, and so the loop itself
    things = _by_loop.setdefault(loop, {})
    thing = things.get((kind, authority))
    if not isinstance(thing, kind):
        thing = things[kind, authority] = made(kind)
    return thing


_MAKER = "/"  # no authority holds a slash


def substitute(kind: type[T], make: Callable[..., T]) -> None:
    """Let the running loop call `make` wherever it would make a `kind` for a URL; a simulation puts its own there."""
    _by_loop.setdefault(asyncio.get_running_loop(), {})[kind, _MAKER] = make


def made(kind: type[T], *arguments: object) -> T:
    """Make a `kind`, or what the running loop has in its place."""
    try:
        make = _by_loop.get(asyncio.get_running_loop(), {}).get((kind, _MAKER), kind)
    except RuntimeError:  # no loop runs
        make = kind
    return make(*arguments)  # type: ignore[operator,no-any-return]  # `substitute` put in what makes one


def parse_url(url: str, options: Collection[str] = ()) -> tuple[str, dict[str, str]]:
    """Split a `memory://` URL into its authority and its options.

    Raises:
        ConfigurationError: another scheme, a path, or an option not in `options`.
    """
    from urllib.parse import parse_qs, urlsplit  # with the first URL, not with the kernel

    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path not in ("", "/") or parts.fragment:
        raise ConfigurationError(f"url {url!r} is not of the form 'memory://' or 'memory://name'; drop what follows it")
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    for name in given:
        if name not in options:
            known = ", ".join(sorted(options)) or "none"
            raise ConfigurationError(f"url {url!r} has an unknown option {name!r}; known options are: {known}")
    return parts.netloc, given
