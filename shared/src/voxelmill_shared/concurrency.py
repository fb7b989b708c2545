"""Many small things at a time, but not too many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

T = TypeVar("T")
U = TypeVar("U")


async def each(function: Callable[[T], Coroutine[Any, Any, U]], items: Iterable[T], limit: int) -> list[U]:
    """Call `function` for every item, at most `limit` at a time; return the results in the items' order.

    The first error cancels the others and is raised as it is.
    """
    gate = asyncio.Semaphore(limit)

    async def one(item: T) -> U:
        async with gate:
            return await function(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
