"""Turns at a file: one at a time, and nobody twice while another waits."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from voxelmill_shared.database import open_database, transaction
from voxelmill_shared.database_limits import DatabaseLimits
from voxelmill_shared.errors import DatabaseUnavailableError
from voxelmill_shared.file_turn import FileTurn

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


def test_who_waits_is_next(tmp_path: Path) -> None:
    """Who has just written waits behind who has not, and a third behind both."""
    one, two, three = (FileTurn(tmp_path / "catalog.db") for _ in range(3))
    assert one.take()
    assert not two.take()
    assert not three.take()
    one.give()
    assert not one.take()
    assert not three.take()
    assert two.take()
    assert not one.take()
    two.give()
    assert one.take()
    one.give()


def test_who_waits_no_more_is_in_nobodys_way(tmp_path: Path) -> None:
    one, two, three = (FileTurn(tmp_path / "catalog.db") for _ in range(3))
    assert one.take()
    assert not two.take()
    two.give()
    one.give()
    assert three.take()
    three.give()


def test_a_process_that_is_killed_gives_its_turn_back(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from voxelmill_shared.file_turn import FileTurn; "
        "turn = FileTurn(pathlib.Path(sys.argv[1])); print(turn.take(), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "catalog.db")], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        ours = FileTurn(tmp_path / "catalog.db")
        assert not ours.take()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert ours.take()
        ours.give()


def test_where_no_lock_can_be_had_nobody_waits(tmp_path: Path) -> None:
    """SQLite's own lock decides there."""
    one, two = (FileTurn(tmp_path / "no folder" / "catalog.db") for _ in range(2))
    assert one.take()
    assert two.take()


async def test_writers_wait_for_the_turn_as_long_as_for_the_database(tmp_path: Path) -> None:
    """Then it is out of reach; whoever gave up is not next any more."""
    engine = open_database(f"sqlite:///{tmp_path}/catalog.db", DatabaseLimits(statement_seconds=0.2))
    somebody = FileTurn(tmp_path / "catalog.db")
    assert somebody.take()
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        async with transaction(engine):
            pytest.fail("it was not our turn")
    waiting = asyncio.create_task(_write(engine))
    await asyncio.sleep(0.05)  # it may look in vain meanwhile; if it has not, the test shows less and does not fail
    somebody.give()
    await waiting
    assert somebody.take()
    somebody.give()
    await engine.dispose()


async def _write(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("CREATE TABLE t (a INTEGER)"))
