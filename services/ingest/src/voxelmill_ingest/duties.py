"""What one replica at a time does: whoever holds the duty's lease. When it dies, another takes over where it stood."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_ingest.tables import duties
from voxelmill_shared.database import is_sqlite, transaction
from voxelmill_shared.errors import DatabaseUnavailableError, VoxelmillError
from voxelmill_shared.lease import claim_due, held_by

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sqlalchemy import Update
    from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger("voxelmill")

LEASE = timedelta(seconds=15)
"""How long a duty lies idle when its holder dies. Clocks of replicas must not differ by more than a part of it."""
_RENEWALS = 3
"""How often a lease is renewed in its time, and how often in the same time the others look whether it ran out."""


class DutyLostError(VoxelmillError):
    """The lease ran out, and another replica may have the duty."""


@dataclass(slots=True)
class Duty:
    """A row of `ingest_duties`.

    Parameters
    ----------
    engine
        Its database.
    name
        Which duty it is; all replicas say the same.
    owner
        Who this replica is; no other says the same.
    lease
        How long the duty is held without a sign of life.
    """

    engine: AsyncEngine
    name: str
    owner: str
    lease: timedelta = LEASE
    held: bool = False

    async def hold(self, work: Callable[[int | None], Coroutine[Any, Any, None]]) -> NoReturn:
        """Do the duty's work whenever it is this replica's, until cancelled. A database that is away is waited for.

        Parameters
        ----------
        work
            Is called with the duty's position, and cancelled when the lease is lost. It goes on until then.
        """
        away = False
        while True:
            try:
                position = await self._claim()
                away = False
                if self.held:
                    await self._hold_once(work, position)
            except DatabaseUnavailableError as error:
                if not away:
                    log.warning("duty waits", duty=self.name, reason=str(error), error_class=error.error_class)
                away = True
            except DutyLostError:
                log.warning("duty lost", duty=self.name)
            await asyncio.sleep(self._pause)

    async def move(self, position: int) -> None:
        """Write down how far the duty has come, and hold it for another while.

        Raises
        ------
        DutyLostError
            If it is no longer this replica's. Nothing was written.
        DatabaseUnavailableError
            If the database does not answer.
        """
        await self._renew(position=position)

    @property
    def _pause(self) -> float:
        return self.lease.total_seconds() / _RENEWALS

    async def _hold_once(self, work: Callable[[int | None], Coroutine[Any, Any, None]], position: int | None) -> None:
        log.info("duty taken", duty=self.name)
        try:
            await until_one_ends(work(position), self._keep())
        finally:
            self.held = False
            await self._give_back()

    async def _keep(self) -> None:
        """Renew the lease again and again; raise when it can no longer be ours."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self._pause)
            began = loop.time()
            try:
                await self._renew()
                renewed = began
            except DatabaseUnavailableError:
                if loop.time() - renewed > self.lease.total_seconds():
                    raise

    async def _claim(self) -> int | None:
        """Take the duty if nobody has it, and say how far it has come."""
        now = datetime.now(UTC)
        async with transaction(self.engine) as connection:
            insert = sqlite.insert(duties) if is_sqlite(connection) else postgresql.insert(duties)
            await connection.execute(insert.values(name=self.name, due_at=now).on_conflict_do_nothing())
            rows = await claim_due(
                connection,
                duties,
                now=now,
                lease=self.lease,
                owner=self.owner,
                limit=1,
                where=duties.c.name == self.name,
            )
        self.held = bool(rows)
        return rows[0].position if rows else None

    async def _renew(self, **values: int) -> None:
        now = datetime.now(UTC)
        if not await self._write(self._mine(now).values(leased_until=now + self.lease, **values)):
            raise DutyLostError(f"{self.name}: another replica has it")

    async def _give_back(self) -> None:
        try:
            await self._write(self._mine(datetime.now(UTC)).values(leased_by=None, leased_until=None))
        except DatabaseUnavailableError as error:
            log.warning("duty not given back, its lease runs out", duty=self.name, reason=str(error))

    def _mine(self, now: datetime) -> Update:
        return update(duties).where(duties.c.name == self.name, held_by(duties, owner=self.owner, now=now))

    async def _write(self, change: Update) -> bool:
        async with transaction(self.engine) as connection:
            return (await connection.execute(change)).rowcount > 0


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at once until one of them ends, then cancel the others; raise what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
