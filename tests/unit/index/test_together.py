"""Writing together: nobody waits longer than needed, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from voxelmill_index.together import Together
from voxelmill_shared.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Writer:
    """Writes numbers, all or none; a negative one it never takes."""

    calls: list[list[int]] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    is_away: bool = False
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, items: Sequence[int]) -> None:
        self.calls.append(list(items))
        await self.goes_on.wait()
        if self.is_away:
            raise DatabaseUnavailableError("away")
        if min(items) < 0:
            raise ValueError("not this one")
        self.written += items


async def begun(together: Together[int], *items: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(together(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_write_is_written_with_the_next_one() -> None:
    writer = Writer()
    together = Together(writer)
    tasks = await begun(together, 1)
    tasks += await begun(together, 2, 3, 4)
    writer.goes_on.set()
    await asyncio.gather(*tasks)
    assert writer.calls == [[1], [2, 3, 4]]
    await together(5)
    assert writer.calls[2:] == [[5]]


async def test_what_cannot_be_written_fails_alone() -> None:
    """The others of its call are written, each by itself."""
    writer = Writer()
    together = Together(writer)
    tasks = await begun(together, 1, 2, -3, 4)
    writer.goes_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [type(None), type(None), ValueError, type(None)]
    assert sorted(writer.written) == [1, 2, 4]
    await together(5)
    assert writer.written[-1] == 5


async def test_a_database_out_of_reach_is_asked_once_for_all_who_wait() -> None:
    """Else each of them would wait for it, one after the other."""
    writer = Writer(is_away=True)
    together = Together(writer)
    tasks = await begun(together, 1)
    tasks += await begun(together, 2, 3)
    writer.goes_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [DatabaseUnavailableError] * 3
    assert writer.calls == [[1], [2, 3]]
    writer.is_away = False
    await together(4)
    assert writer.written == [4]


async def test_who_is_cancelled_takes_nobody_along() -> None:
    """Neither who writes for others nor who waits."""
    writer = Writer()
    together = Together(writer)
    tasks = await begun(together, 1, 2, 3)
    tasks[0].cancel()
    tasks[2].cancel()
    writer.goes_on.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError, type(None), asyncio.CancelledError]
    assert 2 in writer.written
    with pytest.raises(ValueError, match="not this one"):
        await together(-1)
