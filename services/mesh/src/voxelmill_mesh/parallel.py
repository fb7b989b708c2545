"""Compiled code on every core: the functions given here release Python's lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WORKERS = max(1, min(8, len(os.sched_getaffinity(0))))
"""Threads that work at a time. Results never depend on it."""


@contextmanager
def in_parallel() -> Iterator[Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], list[Any]]]:
    """Give a function `run(function, arguments)` that calls it with each tuple; results keep the order."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="mesh") as pool:

        def run(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
            return [future.result() for future in [pool.submit(function, *each) for each in arguments]]

        yield run
