"""One channel that messages come in on, and the acknowledgements that go out on it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.transport.rabbit_link import answer_in_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aio_pika.abc import AbstractChannel
    from aiormq.abc import AbstractChannel as UnderlayChannel

    from voxelmill_shared.transport.rabbit_link import RabbitLink

_PAUSE = 0.05
"""Seconds until the next try, where a channel takes nothing and is not closed yet."""


class Line:
    """A channel of a subscription.

    Confirmations come many at a time, so many messages are done in the same turn of the event loop. Their
    acknowledgements go out together after it, as one frame where they leave no gap: to the broker and to us each frame
    costs as much as a message. No broker confirms an acknowledgement, so nobody waits for it, and nothing is promised
    of it that a turn of the loop could break.

    Parameters
    ----------
    link
        The connection.
    channel, underlay
        The channel, and the library's own below it.
    """

    def __init__(self, link: RabbitLink, channel: AbstractChannel, underlay: UnderlayChannel) -> None:
        self.channel = channel
        self.underlay = underlay
        self._link = link
        self._unsettled: dict[int, None] = {}
        """Tags that were delivered, in their order."""
        self._done: set[int] = set()
        """Those of them that are to be acknowledged."""
        self._sending: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        """Whether the channel is closed: what was in hand is delivered again."""
        return self.underlay.is_closed

    def delivered(self, tag: int) -> None:
        """Note a delivery."""
        self._unsettled[tag] = None

    def acknowledge(self, tag: int) -> None:
        """Acknowledge a delivery, with all others of this turn of the event loop."""
        self._done.add(tag)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def release(self, tag: int) -> None:
        """Hand a delivery back at once.

        Only when that is on its way may others be acknowledged across the gap, else it would be with them.
        """
        await self.underlay.basic_reject(tag, requeue=True)
        self._unsettled.pop(tag, None)

    async def flush(self) -> None:
        """Return when no acknowledgement waits to be sent, or none can be sent any more."""
        while self._sending is not None:
            await asyncio.wait({self._sending})

    async def close(self) -> None:
        """Close the channel; what is to be acknowledged goes out before, if the broker takes it soon."""
        with suppress(TimeoutError):
            async with answer_in_time():
                await self.flush()
        await self._link.close_channel(self.channel)

    async def _send(self) -> None:
        """Send until nothing is left, or the channel is lost: then all of it is delivered again."""
        try:
            while self._done and not self.lost:
                try:
                    with self._link.errors():
                        async with answer_in_time():  # a broker in need does not read
                            await self._send_some()
                except BrokerUnavailableError:
                    await asyncio.sleep(_PAUSE)
        finally:
            self._sending = None

    async def _send_some(self) -> None:
        gapless = 0
        for tag in self._unsettled:
            if tag not in self._done:
                break
            gapless = tag
        if gapless:
            await self.underlay.basic_ack(gapless, multiple=True, wait=False)
            self._settled([tag for tag in self._done if tag <= gapless])
        for tag in sorted(self._done):
            await self.underlay.basic_ack(tag, wait=False)
            self._settled([tag])

    def _settled(self, tags: Iterable[int]) -> None:
        for tag in tags:
            self._done.discard(tag)
            self._unsettled.pop(tag, None)
