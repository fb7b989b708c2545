"""How far a command has come that counts: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from voxelmill_cli.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_SAY_EVERY_SECONDS = 5.0


@contextmanager
def counting(console: Console, doing: str, noun: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many are done of how many; 0 where that is not known.

    Parameters
    ----------
    console
        Where it is shown.
    doing, noun
        What is done, and with what: `exporting`, `records`.
    quiet
        Show nothing.
    """
    if quiet:
        yield lambda _done, _total: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(doing, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)
    else:
        said = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said > _SAY_EVERY_SECONDS:
                said = time.monotonic()
                say(console, f"{doing}: {done} of {total} {noun}" if total else f"{doing}: {done} {noun}")

        yield tell
