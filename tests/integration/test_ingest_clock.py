"""The clock of the machine is put back or forward while a series waits for its timer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.ingest_kit import ABDOMEN, Ingest, files_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_clock_that_is_put_back_an_hour_makes_no_series_wait_an_hour(ingest: Ingest, data: Path) -> None:
    """The timer counts from the new time on."""
    await ingest.upload(files_of(data / ABDOMEN))
    ingest.clock.wait(-3600)
    assert await ingest.completed() == []
    ingest.clock.wait(4.9)
    assert await ingest.completed() == []
    ingest.clock.wait(0.2)
    (event,) = await ingest.completed()
    assert event.instances == 20


async def test_a_clock_that_is_put_forward_an_hour_ends_the_wait(ingest: Ingest, data: Path) -> None:
    """The series is complete at once, and what comes later is a revision of it."""
    await ingest.upload(files_of(data / ABDOMEN))
    ingest.clock.wait(3600)
    (event,) = await ingest.completed()
    assert event.instances == 20
