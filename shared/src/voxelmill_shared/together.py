"""Doing together what many ask for at the same time: one transaction instead of one for each."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Collects what is asked for while the last batch is being done, and does it as the next batch.

    Who comes after a pause is served at once. The more come at a time, the larger the batches become, by themselves. A
    trickle, of which each would cost a batch of its own, is served in turns.

    Parameters
    ----------
    do
        Does a batch, and returns for each item its result or its error, in the items' order. What it raises is the
        error of every item.
    most
        The largest batch.
    pace
        Seconds from the beginning of a batch to that of the next one.
    enough
        How many must wait for the next batch to begin at once, as soon as the last one is done.
    """

    def __init__(
        self,
        do: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        most: int,
        *,
        pace: float = 0.0,
        enough: int = 1,
    ) -> None:
        self._do = do
        self._most = most
        self._pace = pace
        self._enough = enough
        self._enough_wait = asyncio.Event()
        self._next = 0.0
        """The loop's time at which the next batch may begin with less than enough."""
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._in_hand: list[asyncio.Future[R]] = []
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Have one item done; return its result, or raise its error.

        If this is cancelled, the item may have been done or not. The batch goes on for the others; if there are none,
        it is cancelled too.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if len(self._waiting) >= self._enough:
            self._enough_wait.set()
        if self._work is None:
            self._work = asyncio.create_task(self._run())
        try:
            return await answer
        finally:
            if answer.cancelled():
                await self._end_if_alone()

    async def _end_if_alone(self) -> None:
        waiting = (*self._in_hand, *(answer for _, answer in self._waiting))
        if self._work is not None and all(answer.done() for answer in waiting):
            self._work.cancel()
            await asyncio.wait({self._work})

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._until_enough()
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                wanted = [(item, answer) for item, answer in taken if not answer.done()]
                self._in_hand = [answer for _, answer in wanted]
                if wanted:
                    await self._batch([item for item, _ in wanted])
        finally:
            self._work = None
            for answer in (*self._in_hand, *(answer for _, answer in self._waiting)):
                answer.cancel()  # no effect on those that have their answer
            self._in_hand = []
            self._waiting.clear()

    async def _until_enough(self) -> None:
        if len(self._waiting) < self._enough:
            self._enough_wait.clear()
            try:
                async with asyncio.timeout_at(self._next):
                    await self._enough_wait.wait()
            except TimeoutError:
                pass  # it is their turn
        self._next = asyncio.get_running_loop().time() + self._pace

    async def _batch(self, items: Sequence[T]) -> None:
        batch = asyncio.ensure_future(self._do(items))
        try:
            await asyncio.wait({batch})
        except asyncio.CancelledError:
            batch.cancel()
            await asyncio.wait({batch})
            raise
        failure = batch.exception()
        results: Sequence[R | BaseException] = [failure] * len(items) if failure else batch.result()
        for answer, result in zip(self._in_hand, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)
