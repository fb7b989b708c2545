"""SIGINT and SIGTERM: whenever they come, while modules are imported too, the command ends in order and says one line.

This module is imported before all others, so it imports next to nothing itself.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

SIGNALS = (signal.SIGINT, signal.SIGTERM)
T = TypeVar("T")


class Interrupted(BaseException):
    """A signal asked for the end. No `except Exception` on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.line = "interrupted; start it again and it goes on where it was"


def listen() -> None:
    """Raise `Interrupted` wherever the program stands when a signal comes."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def ignore() -> None:
    """Let nothing disturb the end that has begun."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _: object) -> NoReturn:
    raise Interrupted(number)


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; a signal cancels it, and when it has cleaned up `Interrupted` is raised.

    `work` may take the signals for itself with the loop's own handlers.
    """
    import asyncio  # noqa: PLC0415 - see the module's docstring

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[int] = []

    def cancel(number: int) -> None:
        caught.append(number)
        if len(caught) == 1:  # a second one would break off the clean-up
            task.cancel()

    for number in SIGNALS:
        # Not the loop's own handlers: between their removal and the end of the process a signal would kill.
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(cancel, number))
    try:
        return await task
    except BaseException:
        if caught:  # whatever the clean-up ran into, the signal is why
            raise Interrupted(caught[0]) from None
        raise
    finally:
        ignore() if caught else listen()
