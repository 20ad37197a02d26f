"""Paths: what matches, what is preferred, and which cannot be."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from cliffracer_http.matcher import Matcher, parameters_of
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core import ConfigurationError


def matcher(*paths: str) -> Matcher[str]:
    made: Matcher[str] = Matcher()
    for path in paths:
        made.add(path, path)
    return made


@pytest.mark.parametrize(
    ("path", "found", "values"),
    [
        ("/users", "/users", {}),
        ("/users/7", "/users/{id}", {"id": "7"}),
        ("/users/me", "/users/me", {}),
        ("/users/7/orders/9", "/users/{user}/orders/{order}", {"user": "7", "order": "9"}),
        ("/users/me/orders/9", "/users/{user}/orders/{order}", {"user": "me", "order": "9"}),
        ("/users/me/x", "/users/me/{what}", {"what": "x"}),
        ("/files/a/b/c.txt", "/files/{path:path}", {"path": "a/b/c.txt"}),
        ("/files/a", "/files/{path:path}", {"path": "a"}),
        ("/files/special/x", "/files/special/{name}", {"name": "x"}),
        ("/files/special/x/y", "/files/{path:path}", {"path": "special/x/y"}),
        ("/files/.hidden/a..b/...", "/files/{path:path}", {"path": ".hidden/a..b/..."}),
        ("/über/straße", "/über/{name}", {"name": "straße"}),
    ],
)  # fmt: skip
def test_most_specific_route_is_found_when_several_match(path: str, found: str, values: dict[str, str]) -> None:
    """Static before parameter before rest, segment by segment, with going back where that leads nowhere."""
    table = matcher(
        "/users", "/users/{id}", "/users/me", "/users/me/{what}", "/users/{user}/orders/{order}",
        "/files/{path:path}", "/files/special/{name}", "/über/{name}",
    )  # fmt: skip
    assert table.find(path) == (found, values)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/user",
        "/users/",
        "/users//orders/9",
        "/users/7/",
        "/users/a\x00b",
        "/users/a\nb",
        "/users/a\ufffd",
        "/users/..",
        "/files/../x",
        "/files/a/..",
        "/files/./x",
        "/files/",
        "/files",
    ],
)
def test_nothing_is_found_when_no_route_matches(path: str) -> None:
    """A parameter is never empty and never holds a control character; a slash more is another path."""
    assert matcher("/users/{id}", "/users/{user}/orders/{order}", "/files/{path:path}").find(path) is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("users", "begins with '/'"),
        ("/a?b=c", "no query"),
        ("/a b", "no query, space"),
        ("/a/../b", "never sent"),
        ("/{}", "must be an identifier"),
        ("/{a}/{a}", "stands there once"),
        ("/{a-b}", "must be an identifier"),
        ("/x{a}", "'{name}' as a whole"),
        ("/{a:int}", "types stand in annotations"),
        ("/{a:path}/b", "may end a path"),
    ],
)
def test_path_is_refused_when_it_breaks_the_grammar(path: str, text: str) -> None:
    """The error names the path and what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
        parameters_of(path)
    assert repr(path) in str(caught.value)


_SEGMENT = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/{}?#"), min_size=1, max_size=6
).filter(lambda text: text not in (".", ".."))


@given(st.lists(st.tuples(_SEGMENT, st.booleans()), min_size=1, max_size=5), st.data())
def test_values_come_back_when_a_path_is_built_from_its_route(
    segments: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """Whatever is put in for the parameters of a route is what the matcher gives."""
    route = "".join(f"/{{p{index}}}" if one else f"/{text}" for index, (text, one) in enumerate(segments))
    values = {f"p{index}": data.draw(_SEGMENT) for index, (_, one) in enumerate(segments) if one}
    path = "".join(f"/{values[f'p{index}']}" if one else f"/{text}" for index, (text, one) in enumerate(segments))
    assert matcher(route).find(path) == (route, values)


@given(st.data())
def test_matcher_agrees_with_trying_every_route_when_routes_overlap(data: st.DataObject) -> None:
    """What a search over all routes by preference finds, the tree finds."""
    shapes = data.draw(
        st.lists(
            st.lists(st.sampled_from("abx"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8, unique=True
        )
    )
    routes = ["".join(f"/{{p{i}}}" if each == "x" else f"/{each}" for i, each in enumerate(shape)) for shape in shapes]
    table = matcher(*routes)
    path = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
    fitting = [
        shape
        for shape in shapes
        if len(shape) == len(path) and all(a in ("x", b) for a, b in zip(shape, path, strict=True))
    ]
    found = table.find("".join(f"/{each}" for each in path))
    if not fitting:
        assert found is None
    else:
        best = min(fitting, key=lambda shape: [each == "x" for each in shape])
        assert found is not None
        assert found[0] == routes[shapes.index(best)]


def test_same_shape_is_known_when_parameters_have_other_names() -> None:
    """`/a/{x}` and `/a/{y}` are one path; `quote`d text is never decoded twice."""
    table = matcher("/a/{x}")
    assert table.get("/a/{y}") == "/a/{x}"
    assert table.get("/a/{y:path}") is None
    assert table.find(f"/a/{quote('%2e', safe='')}") == ("/a/{x}", {"x": "%252e"})


@given(st.lists(st.text(alphabet="ab.-~ \x00é", max_size=3), min_size=1, max_size=3))
def test_a_last_parameter_is_found_as_any_other(segments: list[str]) -> None:
    """The short way of a route that ends in its one parameter leads where the long one does."""
    quick, slow = Matcher[str](), Matcher[str]()
    for matcher in (quick, slow):
        for path in ("/a/{x}", "/a/b", "/{y}/b", "/{z:path}"):
            matcher.add(path, path)
    slow._last.clear()
    path = "/" + "/".join(segments)
    assert quick._last
    assert quick.find(path) == slow.find(path)
