"""Working ahead: several results in the making while the first is being sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

T = TypeVar("T")


async def ahead(
    calls: Iterable[tuple[int, Callable[[], Awaitable[T]]]], *, most: int, weight: int
) -> AsyncGenerator[T, None]:
    """Give the results of calls in their order, while the next ones are already under way.

    Parameters
    ----------
    calls
        What to call, each with its weight.
    most
        How many are under way, or wait to be given, at a time.
    weight
        How much they may weigh together; a single one may weigh more.
    """
    under_way: deque[tuple[int, asyncio.Future[T]]] = deque()
    held = 0
    waiting = iter(calls)
    following = next(waiting, None)
    try:
        while under_way or following is not None:
            while following is not None and (
                not under_way or (len(under_way) < most and held + following[0] <= weight)
            ):
                held += following[0]
                under_way.append((following[0], asyncio.ensure_future(following[1]())))
                following = next(waiting, None)
            mine, future = under_way.popleft()
            try:
                yield await future
            finally:
                future.cancel()
            held -= mine
    finally:
        for _, future in under_way:
            future.cancel()
        await asyncio.gather(*(future for _, future in under_way), return_exceptions=True)
