"""Progress of the work in hand: told to whoever watches in this process at once, and to the broker now and then.

A handler takes `current()` and gives it to its child. What it tells never blocks the work and never fails it: the
broker hears of it from a task of its own, which drops what the broker does not take.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from voxelmill_shared import metrics
from voxelmill_shared.errors import BrokerUnavailableError, UnroutableError
from voxelmill_shared.events import Envelope, JobProgressed, SeriesEvent, cause
from voxelmill_shared.transport import base
from voxelmill_shared.work import Progress, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from voxelmill_shared.events import Stage

    Watch = Callable[[JobProgressed], None]

PUBLISH_SECONDS = 5.0
"""How long the broker may take for one of these events. It has none that it must not lose."""


def _nobody(_: Progress | str) -> None:
    """Be told where nobody listens: outside of a worker."""


_current: ContextVar[Report] = ContextVar("voxelmill_progress", default=_nobody)


def current() -> Report:
    """Return whom to tell how far the message in hand is."""
    return _current.get()


class ProgressFeed:
    """Publishes the progress of the messages that one worker has in hand.

    Parameters
    ----------
    transport
        Where the events go.
    stage
        Whose progress it is.
    source
        Who publishes, for the envelopes.
    seconds
        The least time between two events about one message.
    watch
        Is told of every part, not only of those that are published. It must not raise.
    """

    def __init__(
        self, transport: base.Transport, stage: Stage, source: str, *, seconds: float, watch: Watch | None = None
    ) -> None:
        self._transport = transport
        self._stage = stage
        self._source = source
        self._seconds = seconds
        self._watch = watch
        self._tellers: set[asyncio.Task[None]] = set()

    @contextmanager
    def of(self, event: object, attempt: int) -> Iterator[None]:
        """Let `current()` tell of this event's job inside the block; of other events there is nothing to tell."""
        if not isinstance(event, SeriesEvent):
            yield
            return
        told = _Told()
        teller: asyncio.Task[None] | None = None

        def report(progress: Progress | str) -> None:
            nonlocal teller
            news = self._event(event, attempt, progress)
            told.put(news)
            if teller is None:
                teller = asyncio.create_task(self._tell(told, cause.get()))
                self._tellers.add(teller)
                teller.add_done_callback(self._tellers.discard)
            if self._watch is not None:
                self._watch(news)

        token = _current.set(report)
        try:
            yield
        finally:
            _current.reset(token)
            told.end()

    async def close(self) -> None:
        """Forget what is still to be told."""
        tellers = list(self._tellers)
        for teller in tellers:
            teller.cancel()
        await asyncio.gather(*tellers, return_exceptions=True)

    def _event(self, event: SeriesEvent, attempt: int, progress: Progress | str) -> JobProgressed:
        progress = Progress(progress) if isinstance(progress, str) else progress
        done = min(progress.done, progress.total)
        return JobProgressed(
            study_instance_uid=event.study_instance_uid,
            series_instance_uid=event.series_instance_uid,
            revision=event.revision,
            job_id=event.job_id,
            stage=self._stage,
            attempt=attempt,
            step=progress.step,
            done=done,
            total=progress.total,
            percent=100 * done // progress.total if progress.total else None,
        )

    async def _tell(self, told: _Told, parent: Envelope | None) -> None:
        """Publish the newest there is, wait, and again; after the work's end only what has not been published yet."""
        cause.set(parent)
        while (news := await told.next()) is not None:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self._publish(news)
            except UnroutableError:
                pass  # nobody asked for it
            except (BrokerUnavailableError, TimeoutError):
                metrics.PROGRESS_LOST.labels(self._stage).inc()  # the next one says more
            await told.rest(self._seconds)

    async def _publish(self, event: JobProgressed) -> None:
        envelope = Envelope.wrap(event, self._source)
        await self._transport.publish([base.Message(envelope.encode(), envelope.routing_key, str(envelope.id))])


class _Told:
    """The newest progress of one message: what is not published before the next comes is not published at all."""

    def __init__(self) -> None:
        self._newest: JobProgressed | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    def put(self, event: JobProgressed) -> None:
        self._newest = event
        self._news.set()

    def end(self) -> None:
        self._ended.set()
        self._news.set()

    async def next(self) -> JobProgressed | None:
        """Wait for news; None when the work has ended and all is told."""
        await self._news.wait()
        newest, self._newest = self._newest, None
        if not self._ended.is_set():
            self._news.clear()
        return newest

    async def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the work."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return
