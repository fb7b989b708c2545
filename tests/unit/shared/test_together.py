"""Doing together what is asked for at the same time: nobody waits in vain, and nobody answers for another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence


class Doubling:
    """Doubles numbers, a batch at a time, when it is let; an odd number is an error of its own."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let = asyncio.Event()
        self.cancelled = False

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if 666 in items:
            raise OSError("the whole batch")
        return [ValueError(item) if item % 2 else 2 * item for item in items]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_alone_is_served_alone_and_who_comes_meanwhile_together(doubling: Doubling) -> None:
    together = Together(doubling, most=4)
    tasks = [asyncio.create_task(together(0))]
    await turns()
    tasks += [asyncio.create_task(together(number)) for number in (2, 4, 6, 8, 10)]
    await turns()
    assert doubling.batches == [[0]]
    doubling.let.set()
    assert await asyncio.gather(*tasks) == [0, 4, 8, 12, 16, 20]
    assert doubling.batches == [[0], [2, 4, 6, 8], [10]]


async def test_an_error_is_that_of_its_item_alone(doubling: Doubling) -> None:
    together = Together(doubling, most=4)
    doubling.let.set()
    answers = await asyncio.gather(*(together(number) for number in (2, 3, 4)), return_exceptions=True)
    assert answers[::2] == [4, 8]
    assert isinstance(answers[1], ValueError)


async def test_what_a_batch_raises_is_the_error_of_all_of_it_and_the_next_one_goes_on(doubling: Doubling) -> None:
    together = Together(doubling, most=2)
    doubling.let.set()
    answers = await asyncio.gather(*(together(number) for number in (666, 2, 4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError, OSError, int]


async def test_one_that_is_cancelled_takes_nobody_along(doubling: Doubling) -> None:
    together = Together(doubling, most=4)
    first, *others = [asyncio.create_task(together(number)) for number in (2, 4, 6)]
    await turns()
    first.cancel()
    await asyncio.wait([first])
    doubling.let.set()
    assert await asyncio.gather(*others) == [8, 12]
    assert first.cancelled()
    assert not doubling.cancelled


async def test_work_that_nobody_waits_for_is_cancelled(doubling: Doubling) -> None:
    together = Together(doubling, most=4)
    tasks = [asyncio.create_task(together(number)) for number in (2, 4)]
    await turns()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert doubling.cancelled
    doubling.let.set()
    assert await together(8) == 16  # and it works again


async def test_one_that_is_cancelled_before_its_turn_is_not_done(doubling: Doubling) -> None:
    together = Together(doubling, most=1)
    tasks = [asyncio.create_task(together(number)) for number in (2, 4, 6)]
    await turns()
    tasks[1].cancel()
    await turns()
    doubling.let.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [4, 12]
    assert doubling.batches == [[2], [6]]


async def test_a_trickle_is_served_in_turns_and_the_first_of_it_at_once(doubling: Doubling) -> None:
    together = Together(doubling, most=4, pace=3600.0, enough=3)
    doubling.let.set()
    assert await together(2) == 4
    tasks = [asyncio.create_task(together(number)) for number in (4, 6)]
    await turns()
    assert doubling.batches == [[2]]
    assert await together(8) == 16  # now they are enough
    assert await asyncio.gather(*tasks) == [8, 12]
    assert doubling.batches == [[2], [4, 6, 8]]


async def test_a_turn_comes_by_itself_when_no_more_come(doubling: Doubling) -> None:
    together = Together(doubling, most=4, pace=0.05, enough=3)
    doubling.let.set()
    async with asyncio.timeout(10):
        assert [await together(number) for number in (2, 4, 6)] == [4, 8, 12]


async def test_one_that_is_cancelled_while_it_waits_for_its_turn_holds_up_nobody(doubling: Doubling) -> None:
    together = Together(doubling, most=4, pace=3600.0, enough=2)
    doubling.let.set()
    assert await together(2) == 4
    alone = asyncio.create_task(together(4))
    await turns()
    alone.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([alone])
        assert await asyncio.gather(together(6), together(8)) == [12, 16]
    assert doubling.batches == [[2], [6, 8]]
