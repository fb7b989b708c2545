"""Writing together what comes at the same time: whoever waits for a write is written with the next one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from voxelmill_shared.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Item = TypeVar("Item")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item]):
    """An item that somebody waits for."""

    item: Item
    is_written: bool = False
    is_alone: bool = False
    """It was among several that could not be written: it is tried by itself, so that a bad one fails alone."""
    error: DatabaseUnavailableError | None = None


class Together(Generic[Item]):
    """Calls a function with whatever waits, one call at a time.

    While one call runs, items gather for the next. So a single item is written at once, and many cost few calls.

    Parameters
    ----------
    write
        Writes several items, all or none of them.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._waiting: dict[_Waiting[Item], None] = {}

    async def __call__(self, item: Item) -> None:
        """Return when the item is written.

        Raises
        ------
        Exception
            Whatever `write` raised for this item alone, or, if the database was out of reach, for it and others.
        """
        own = _Waiting(item)
        self._waiting[own] = None
        try:
            async with self._turn:
                if own.error is not None:
                    raise own.error
                if not own.is_written:
                    await self._write_with(own)
        finally:
            self._waiting.pop(own, None)

    async def _write_with(self, own: _Waiting[Item]) -> None:
        taken = [own] if own.is_alone else [one for one in self._waiting if not one.is_alone]
        try:
            await self._write([one.item for one in taken])
        except DatabaseUnavailableError as error:
            for one in taken:
                self._waiting.pop(one, None)
                one.error = error
            raise
        except Exception:
            if len(taken) == 1:
                raise
            for one in taken:
                one.is_alone = True
            await self._write([own.item])
            return
        for one in taken:
            self._waiting.pop(one, None)
            one.is_written = True
