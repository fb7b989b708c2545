"""What the tests of the database's plumbing share: tables, programs of their own, waiting."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.lease import lease_columns
from voxelmill_shared.outbox import outbox_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

METADATA = MetaData()
NOTES = Table(
    "notes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("text", String(100), unique=True, nullable=False),
    Column("at", UtcDateTime()),
)
REPLIES = Table("replies", METADATA, Column("id", Integer, primary_key=True), Column("note", ForeignKey("notes.id")))
TIMERS = Table(
    "timers",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("part", Integer, primary_key=True),
    *lease_columns(),
)
OUTBOX = outbox_table(METADATA, "outbox")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def run_program(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until an asynchronous condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in a database
            await asyncio.sleep(0.01)
