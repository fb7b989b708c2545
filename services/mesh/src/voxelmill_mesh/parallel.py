"""Compiled code on every core: the functions given here release Python's lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ResultT = TypeVar("ResultT")

WORKERS = max(1, min(8, len(os.sched_getaffinity(0))))
"""Threads that work at a time. Results never depend on it."""


class Run(Protocol):
    """Calls a function with each tuple of arguments, several at a time; results keep the order."""

    def __call__(
        self,
        function: Callable[..., ResultT],
        arguments: Iterable[tuple[Any, ...]],
        tell: Callable[[int], None] = lambda _: None,
    ) -> list[ResultT]:
        """Return the results. `tell` hears how many there are after each; what it raises ends the work."""


@contextmanager
def in_parallel() -> Iterator[Run]:
    """Give a function that calls others in threads. If anything is raised, what has not begun is not done."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="mesh") as pool:

        def run(
            function: Callable[..., ResultT],
            arguments: Iterable[tuple[Any, ...]],
            tell: Callable[[int], None] = lambda _: None,
        ) -> list[ResultT]:
            results: list[ResultT] = []
            for future in [pool.submit(function, *each) for each in arguments]:
                results.append(future.result())
                tell(len(results))
            return results

        try:
            yield run
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
