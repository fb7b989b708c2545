"""`voxelmill dlq replay` when the broker goes away in the middle: what was done, what was not, and what to do."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from unit.cli.test_dlq import bury, uploaded
from voxelmill_cli import dlq
from voxelmill_cli.errors import EXIT_UNREACHABLE, CommandError
from voxelmill_shared.dead_letters import Order


@pytest.mark.parametrize("drop", [False, True])
def test_a_broker_that_goes_away_in_the_middle(tmp_path, drop):
    """One line says how many were settled before; the others are there when the broker is."""
    asyncio.run(bury(tmp_path, uploaded(1), uploaded(2), uploaded(3)))

    def rename(old, new):
        with closing(sqlite3.connect(tmp_path / "broker.db")) as file:
            file.execute(f"ALTER TABLE {old} RENAME TO {new}")

    def go_away(progress):
        if progress.done == 1:
            rename("dead_letter", "away")

    letters = asyncio.run(dlq.list_letters(tmp_path, dlq.Selection()))
    order = Order("me@here", rate=9, told=go_away)  # so few a second that each is a batch
    with pytest.raises(CommandError, match=r"at least 1 of 3 dead letters were .*; start it again") as ended:
        asyncio.run(dlq.settle(tmp_path, letters, order, drop=drop))
    assert ended.value.exit_code == EXIT_UNREACHABLE
    assert ("dropped" in str(ended.value)) is drop
    rename("away", "dead_letter")
    left = asyncio.run(dlq.list_letters(tmp_path, dlq.Selection()))
    assert [letter.handle for letter in left] == [letter.handle for letter in letters[1:]]
