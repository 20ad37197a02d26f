from __future__ import annotations

import pytest
from cliffracer_discovery.semver import normalise
from hypothesis import given
from hypothesis import strategies as st
from nats.micro.service import SEMVER_REGEX

from cliffracer_core import ConfigurationError


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3", "1.0.0-rc.1", "1.0.0-0a", "1.0.0+build.05", "10.20.30-a-b+c-d"])
def test_version_stays_when_semantic(version: str) -> None:
    """A semantic version is announced as it is."""
    assert normalise(version) == version


@pytest.mark.parametrize(
    ("version", "announced"),
    [
        ("1", "1.0.0"),
        ("1.2", "1.2.0"),
        ("v1.2.3", "1.2.3"),
        ("2024.01.05", "2024.1.5"),
        ("1.2rc1", "1.2.0-rc1"),
        ("1.2.3.dev4", "1.2.3-dev4"),
        ("1.2.3.post1", "1.2.3+post1"),
        ("1.2-beta", "1.2.0-beta"),
    ],
)
def test_version_is_completed_when_nearly_semantic(version: str, announced: str) -> None:
    """What leaves no doubt is written as a semantic version, a post-release never below its release."""
    assert normalise(version) == announced


@pytest.mark.parametrize("version", ["", "latest", "1.2.3.4", "1.2.3-", "1.0.0-01", "1.2.3\n", "1..2", "\u0661.0.0"])
def test_version_is_refused_when_it_is_none(version: str) -> None:
    """Anything else is refused, with a remedy."""
    with pytest.raises(ConfigurationError, match=r"no semantic version.*write 'major\.minor\.patch'"):
        normalise(version)


@given(st.text(alphabet="0123456789.-+vabrcdevpost", max_size=12))
def test_result_is_semantic_when_there_is_one(version: str) -> None:
    """Whatever is announced satisfies the expression of semver.org, as nats-py has it."""
    try:
        announced = normalise(version)
    except ConfigurationError:
        return
    assert SEMVER_REGEX.match(announced)
