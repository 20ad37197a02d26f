from __future__ import annotations

import pytest
from cliffracer_websocket import history as module
from cliffracer_websocket.history import History
from cliffracer_websocket.publication import Publication
from hypothesis import given
from hypothesis import strategies as st


def publication(offset: int, group: str = "g", at: float = 0.0) -> Publication:
    return Publication(group, b"%d" % offset, offset, None, at)


def filled(size: int, count: int) -> History:
    history = History(size, 100.0)
    for offset in range(1, count + 1):
        history.append(publication(offset))
    return history


def test_missed_messages_are_replayed_when_they_are_kept() -> None:
    """What came after an offset, in order, and that it is all of it."""
    missed, whole = filled(10, 5).since("g", 3)
    assert [each.offset for each in missed] == [4, 5]
    assert whole


def test_loss_is_told_when_messages_fell_out() -> None:
    """Past the size the oldest go; who had not seen them is told."""
    history = filled(3, 10)
    assert history.since("g", 6)[1] is False
    missed, whole = history.since("g", 7)
    assert [each.offset for each in missed] == [8, 9, 10]
    assert whole


def test_offset_from_the_future_is_a_loss() -> None:
    """Nobody can be past the end: such an offset is of another history."""
    assert filled(3, 2).since("g", 3)[1] is False


def test_loss_is_told_when_messages_expired() -> None:
    """What is older than the time to live is gone, also where a group is empty by then."""
    history = History(10, 60.0)
    history.append(publication(1, at=0.0))
    history.append(publication(2, at=50.0))
    assert history.expire(60.0) == [1]
    assert history.since("g", 0)[1] is False
    assert history.since("g", 1)[1] is True
    assert history.expire(200.0) == [2]
    assert history.since("g", 1)[1] is False
    assert history.since("g", 2) == ([], True)


def test_one_group_is_whole_when_another_lost_messages() -> None:
    """Groups share offsets, not losses."""
    history = History(2, 100.0)
    history.append(publication(1, "quiet"))
    for offset in range(2, 12):
        history.append(publication(offset, "busy"))
    missed, whole = history.since("quiet", 0)
    assert [each.offset for each in missed] == [1]
    assert whole
    assert history.since("busy", 5)[1] is False


def test_all_are_told_when_messages_were_lost_unseen() -> None:
    """Where nobody knows what is gone, whoever was not past it counts as having lost something."""
    history = filled(10, 5)
    history.lose(5)
    assert history.since("g", 4)[1] is False
    assert history.since("g", 5)[1] is True


def test_memory_is_bounded_when_groups_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of groups that are empty only so many floors are kept; older ones share one, on the safe side."""
    monkeypatch.setattr(module, "MAX_FLOORS", 3)
    history = History(10, 1.0)
    for offset in range(1, 11):
        history.append(publication(offset, f"g{offset}", at=float(offset)))
    history.expire(100.0)
    assert len(history._floors) == 3
    assert history.since("g10", 10) == ([], True)
    assert history.since("g10", 9)[1] is False
    assert history.since("g1", 0)[1] is False


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3)), max_size=40),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 45),
)
def test_replay_is_never_called_whole_when_something_is_missing(
    size: int, steps: list[tuple[str, int]], group: str, since: int
) -> None:
    """Whatever was appended, pushed out and expired: "whole" means that each message past the offset is there."""
    history, sent, now = History(size, 5.0), list[tuple[str, int]](), 0.0
    for offset, (name, pause) in enumerate(steps, 1):
        now += pause
        history.expire(now)
        history.append(publication(offset, name, at=now))
        sent.append((name, offset))
    history.expire(now)
    missed, whole = history.since(group, since)
    expected = [offset for name, offset in sent if name == group and offset > since]
    if whole:
        assert [each.offset for each in missed] == expected
