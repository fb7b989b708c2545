"""What every stage's work takes and gives."""

from __future__ import annotations

import time

from voxelmill_shared.work import StepClock


def test_a_step_ends_where_the_next_begins() -> None:
    """Each step is reported as it begins, and the steps' times are no more than the time that has passed."""
    reported: list[str] = []
    started = time.perf_counter()
    clock = StepClock(reported.append)
    clock.begin("read")
    assert (reported, clock.seconds) == (["read"], {})
    sum(range(200_000))
    clock.begin("write")
    assert list(clock.seconds) == ["read"]
    assert clock.seconds["read"] > 0
    clock.end()
    clock.end()
    assert list(clock.seconds) == reported == ["read", "write"]
    assert sum(clock.seconds.values()) <= time.perf_counter() - started + 1e-4
