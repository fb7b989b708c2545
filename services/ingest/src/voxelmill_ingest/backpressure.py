"""Holding back what is announced while ingest's own queue is long: what is not announced stays where it is durable.

The broker's disk is no place for a bucket's backlog. A bucket, an SQS queue, a queue of notifications and a filer's log
keep what they have to tell; whoever pushes over HTTP is told to come again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from voxelmill_shared.errors import TransientError
from voxelmill_shared.metrics import ANNOUNCEMENTS_HELD_BACK
from voxelmill_shared.transport.topology import INGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxelmill_shared.transport.base import Transport

log = structlog.get_logger("voxelmill")

LOOK_SECONDS = 2.0
"""How long a count is good for: the broker is asked no more often, so a queue may grow beyond its limit by what is
announced in that time."""
GO_ON_AT = 0.9
"""At which part of the limit announcing goes on, so that it does not stop again with the next object."""


class QueueFullError(TransientError):
    """Ingest's queue is as long as it may be: whoever has something to announce keeps it, and comes again."""

    error_class = "queue-full"


@dataclass(slots=True)
class Backpressure:
    """Lets announcements through while ingest's queue is short enough.

    Parameters
    ----------
    transport
        The broker of the queue.
    limit
        The most messages that may wait for ingest; 0: as many as there are.
    clock
        Seconds that pass.
    """

    transport: Transport
    limit: int
    clock: Callable[[], float] = time.monotonic
    _full: bool = False
    _reason: str = ""
    _looked: float | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        ANNOUNCEMENTS_HELD_BACK.set(0)

    async def admit(self) -> None:
        """Return if more may be announced.

        Raises
        ------
        QueueFullError
            If not now.
        BrokerUnavailableError
            If the broker does not say how long the queue is.
        """
        if not self.limit:
            return
        async with self._looking:
            if self._looked is None or self.clock() - self._looked >= LOOK_SECONDS:
                self._judge(await self._length())
                self._looked = self.clock()
        if self._full:
            raise QueueFullError(self._reason)

    async def _length(self) -> int:
        counts = await self.transport.counts()
        return sum(count.ready for count in counts if count.queue == INGEST.name)

    def _judge(self, length: int) -> None:
        full = length > self.limit * (GO_ON_AT if self._full else 1.0)
        self._reason = f"{length} messages wait in {INGEST.name}, and {self.limit} may (VOXELMILL_INGEST_QUEUE_LIMIT)"
        if full and not self._full:
            log.warning("announcing nothing until the queue is shorter", queue=INGEST.name, reason=self._reason)
        elif self._full and not full:
            log.info("announcing goes on", queue=INGEST.name, length=length)
        self._full = full
        ANNOUNCEMENTS_HELD_BACK.set(full)
