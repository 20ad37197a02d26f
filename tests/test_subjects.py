"""The subject grammar, against a naive reading of its definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliffracer_core.errors import InvalidSubject
from cliffracer_core.subjects import (
    MAX_SUBJECT_BYTES,
    compile_pattern,
    covers,
    default_stream_subjects,
    is_pattern,
    overlaps,
    stream_name,
    validate_pattern,
    validate_subject,
    validate_token,
)

ALPHABET = "ab"
UNIVERSE = [".".join(tokens) for size in (1, 2, 3, 4, 5) for tokens in itertools.product("abc", repeat=size)]
"""All subjects of up to five tokens; `c` is in no pattern, so a wildcard always has more to match."""


def matches_naively(pattern: list[str], subject: list[str]) -> bool:
    if not pattern or not subject:
        return not pattern and not subject
    if pattern[0] == ">":
        return True
    return pattern[0] in ("*", subject[0]) and matches_naively(pattern[1:], subject[1:])


tokens = st.lists(st.sampled_from([*ALPHABET, "*"]), min_size=1, max_size=3)
patterns = st.builds(lambda head, tail: ".".join(head + tail), tokens, st.sampled_from([[], [">"]])) | st.just(">")
subjects = st.sampled_from(UNIVERSE)
token_text = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters=".*>"), min_size=1, max_size=8
)
texts = st.text(st.sampled_from("ab.*> \t\n\r\x00\x7f\u00a0\u2028ü\ud800"), max_size=8)


def matched(pattern: str) -> set[str]:
    return {subject for subject in UNIVERSE if matches_naively(pattern.split("."), subject.split("."))}


@given(patterns, subjects)
def test_compile_pattern_agrees_with_the_definition(pattern: str, subject: str) -> None:
    """A compiled pattern matches what the definition says token by token."""
    assert compile_pattern(pattern)(subject) == matches_naively(pattern.split("."), subject.split("."))


@given(st.lists(token_text, min_size=1, max_size=4), st.data())
def test_compile_pattern_takes_tokens_literally(words: list[str], data: st.DataObject) -> None:
    """Whatever characters a token has, only `*` and `>` mean anything."""
    subject = ".".join(words)
    at = data.draw(st.integers(0, len(words) - 1))
    starred = ".".join([*words[:at], "*", *words[at + 1 :]])
    assert validate_subject(subject) == subject
    assert validate_pattern(starred) == starred
    assert compile_pattern(subject)(subject)
    assert compile_pattern(starred)(subject)
    assert compile_pattern(".".join([*words[:at], ">"]))(subject)
    assert not compile_pattern(subject)(f"{subject}x")
    assert not compile_pattern(starred)(f"{subject}.x")


@given(patterns, patterns)
def test_covers_agrees_with_brute_force(wide: str, narrow: str) -> None:
    """One pattern covers another if it matches every subject that the other matches."""
    assert covers(wide, narrow) == (matched(narrow) <= matched(wide))


@given(patterns, patterns)
def test_overlaps_agrees_with_brute_force(one: str, other: str) -> None:
    """Two patterns overlap if some subject is matched by both, whichever comes first."""
    assert overlaps(one, other) == overlaps(other, one) == bool(matched(one) & matched(other))


@given(patterns)
def test_is_pattern_means_more_than_one_subject(pattern: str) -> None:
    """What has no wildcard matches itself alone."""
    assert is_pattern(pattern) == (matched(pattern) != {pattern})


@given(texts)
def test_validation_agrees_with_the_definition(text: str) -> None:
    """A pattern has non-empty tokens, whole wildcards, `>` last, no space or control; a subject no wildcard."""
    parts = text.split(".")
    clean = not any(char.isspace() or char < " " or char in "\x7f\ud800" for char in text)
    whole = all(part in ("*", ">") or not set(part) & set("*>") for part in parts)
    pattern = bool(text) and clean and all(parts) and whole and ">" not in parts[:-1]
    assert accepted(validate_pattern, text) == pattern
    assert accepted(validate_subject, text) == (pattern and not set(parts) & {"*", ">"})


def accepted(validate: object, text: object) -> bool:
    assert callable(validate)
    try:
        assert validate(text) is text
    except InvalidSubject:
        return False
    return True


@pytest.mark.parametrize("text", [None, 5, b"a.b", ["a"]])
def test_validation_refuses_what_is_no_text(text: object) -> None:
    """A subject of another type is an InvalidSubject too."""
    assert not accepted(validate_subject, text)
    assert not accepted(validate_pattern, text)


@pytest.mark.parametrize("letter", ["a", "ü", "世"])
def test_length_is_counted_in_bytes(letter: str) -> None:
    """A subject may have so many bytes of UTF-8, and not one more."""
    longest = letter * (MAX_SUBJECT_BYTES // len(letter.encode()))
    assert accepted(validate_subject, longest)
    assert not accepted(validate_subject, longest + letter)


@pytest.mark.parametrize(
    ("token", "valid"), [("users", True), ("a-b_C1", True), ("", False), ("a.b", False), ("ü", False)]
)
def test_validate_token_takes_a_name(token: str, valid: bool) -> None:
    """A name is letters, digits, `_` and `-`; the error says which name of what."""
    if valid:
        assert validate_token(token, "service") == token
    else:
        with pytest.raises(InvalidSubject, match=f"service {token!r} is not a name"):
            validate_token(token, "service")


@pytest.mark.parametrize(("pattern", "stream"), [("order.created", "ORDER"), ("order.>", "ORDER"), ("a+b.*", "A_B")])
def test_stream_name_is_the_first_token(pattern: str, stream: str) -> None:
    """Each first token has a stream of its own."""
    assert stream_name(pattern) == stream


@pytest.mark.parametrize("pattern", ["*.created", ">"])
def test_stream_name_asks_for_a_name_when_the_pattern_starts_with_a_wildcard(pattern: str) -> None:
    """Such a pattern has no first token to go by, and the error says what to do."""
    with pytest.raises(InvalidSubject, match="stream='NAME'"):
        stream_name(pattern)


@pytest.mark.parametrize(
    ("stream", "pattern", "expected"),
    [
        ("ORDER", "order.created", ["order", "order.>"]),
        ("ORDER", "order.>", ["order", "order.>"]),
        ("ORDER", "order", ["order", "order.>"]),
        ("AUDIT", "order.*.x", ["order", "order.>"]),
        ("ONE", "*", ["*"]),
        ("DLQ_users", "dlq.users.audit", ["dlq.users.>", "redrive.users.>"]),
        ("DLQ_users", "redrive.users.>", ["dlq.users.>", "redrive.users.>"]),
    ],
)
def test_default_stream_subjects(stream: str, pattern: str, expected: list[str]) -> None:
    """A new stream takes its pattern's first token and all below; a dead-letter stream its service's two trees."""
    assert default_stream_subjects(stream, pattern) == expected


@pytest.mark.parametrize("pattern", ["rpc.a.b", "rpc.>", "rpc", ">", "*.>", "*.created", "*.*"])
def test_default_stream_subjects_refuses_requests(pattern: str) -> None:
    """A stream over a request's subject would answer it, so none is made."""
    with pytest.raises(InvalidSubject, match=r"a stream over rpc\.> would answer requests"):
        default_stream_subjects("X", pattern)


@pytest.mark.parametrize("stream", ["", "a.b", "a b", "DLQ_", "DLQ_a.b", "*"])
def test_default_stream_subjects_refuses_names(stream: str) -> None:
    """A stream's name is one token, and names a service after `DLQ_`."""
    with pytest.raises(InvalidSubject):
        default_stream_subjects(stream, "order.a")


@given(patterns.filter(lambda pattern: pattern[0] in ALPHABET))
def test_default_stream_subjects_cover_their_pattern(pattern: str) -> None:
    """A stream made for a pattern takes all of it, in one of its subjects, which do not overlap."""
    subjects = default_stream_subjects("X", pattern)
    assert any(covers(subject, pattern) for subject in subjects)
    assert not any(overlaps(one, other) for one, other in itertools.combinations(subjects, 2))
