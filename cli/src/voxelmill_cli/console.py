"""Printing what files and headers say: as it is, and never as a command to rich or to the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from voxelmill_shared.privacy import recent_addresses, with_keys
from voxelmill_shared.storage.keys import printable

if TYPE_CHECKING:
    from rich.console import Console


def say(console: Console, line: str) -> None:
    r"""Print one line, however long, without markup; control characters are shown as `\x1b`."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def cell(text: str) -> Text:
    """Make a table's cell of a text that is not ours."""
    return Text(printable(text))


def revealed(reason: str) -> str:
    """Put the objects' own names into a reason of this process, which names them by digests."""
    return with_keys(reason, recent_addresses()) if "#" in reason else reason
