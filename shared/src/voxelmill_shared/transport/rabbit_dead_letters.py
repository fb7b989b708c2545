"""The dead letters of a RabbitMQ queue in our hand: to be seen, put back, or given up.

AMQP has no look at a queue that does not consume. The letters are taken by a consumer that acknowledges nothing, and
laid back at the end, or by the broker when our connection ends. Two who did that at the same time would each see a
part, so whoever does it first takes a lock: an exclusive queue, which the broker removes when its owner's connection
ends.

A letter is replayed by rejecting it. The dead-letter queue is declared so that the broker itself carries what is
rejected back to the queue that it came from, and removes it here when it is confirmed there (at-least-once). For us it
is one frame: a process that is killed has sent it or has not. A copy that we published and an acknowledgement after it
would be two, and a crash between them would make two messages of one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Generic

from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity

from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.transport.base import DeadLettersHeldError, T
from voxelmill_shared.transport.rabbit_link import answer_in_time
from voxelmill_shared.transport.rabbit_messages import dead_letter_of, event_publication

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aio_pika.abc import AbstractChannel
    from aiormq.abc import AbstractChannel as UnderlayChannel
    from aiormq.abc import DeliveredMessage

    from voxelmill_shared.transport.base import DeadLetter, Message
    from voxelmill_shared.transport.rabbit_link import RabbitLink
    from voxelmill_shared.transport.topology import QueueSpec

PATIENCE_SECONDS = 10.0
"""How long another one may have the letters in hand before it is an error. A look at 10,000 takes a second, and ten
where the machine is busy."""
_PAUSE = 0.1
_PAGE = 200
"""How many letters the broker reads into its memory at a time."""
_AT_A_TIME = 16
"""How many letters are settled before the broker is asked whether it has done so.

A quorum queue's channel holds back settlements while more than 32 are under way, and forgets them when it is closed. A
`basic.get` goes through the same log as they do, so what was settled before its answer is known to be settled.
"""


class RabbitHold(Generic[T]):
    """All dead letters of one queue in our hand, on a channel of their own. See `DeadLetterHold`.

    Parameters
    ----------
    link
        The connection.
    queue
        Whose dead letters.
    view
        What is kept of each one.
    """

    def __init__(self, link: RabbitLink, queue: QueueSpec, view: Callable[[DeadLetter], T]) -> None:
        self._link = link
        self._queue = queue
        self._view = view
        self._found: list[tuple[datetime, int, T]] = []
        self._tags: dict[str, int] = {}
        """The delivery of each handle that is not settled."""
        self._twins: Counter[str] = Counter()
        self._channel: AbstractChannel | None = None
        self._lock: AbstractChannel | None = None
        self._lock_name = f"{queue.dead_letters}.held"

    @property
    def seen(self) -> list[T]:
        """What `view` made of each letter, by the time of its death: the broker lays letters back in no order."""
        return [view for _, _, view in self._found]

    async def take(self) -> None:
        """Take all letters that are there now.

        Raises
        ------
        DeadLettersHeldError
            If another process has them, for longer than a look takes.
        TopologyMismatchError
            If the queue stands in another form: out of one that leads nowhere a replay would lose the letter.
        """
        await self._take_lock()
        if not await self._exists():
            return
        await self._link.declare_dead_letters(self._queue)
        self._channel = await self._link.channel()
        with self._link.errors():
            channel = await self._channel.get_underlay_channel()
            async with answer_in_time():
                await channel.basic_qos(prefetch_count=_PAGE)
            more = True
            while more:
                async with answer_in_time():
                    await channel.basic_consume(self._queue.dead_letters, self._receive)
                more = await self._get(channel)
            # All letters are dealt out. Those that were before the last answer come before the next one.
            async with answer_in_time():
                await channel.basic_qos(prefetch_count=1)
        self._found.sort(key=lambda entry: entry[:2])

    async def _take_lock(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not await self._has_locked():
            if time.monotonic() > until:
                raise DeadLettersHeldError(
                    f"{self._queue.dead_letters}: another process has these dead letters in hand (a replay?);"
                    " try again when it has ended"
                )
            await asyncio.sleep(_PAUSE)

    async def _has_locked(self) -> bool:
        lock = await self._link.channel()
        try:
            with self._link.errors():
                try:
                    async with answer_in_time():
                        await lock.declare_queue(self._lock_name, exclusive=True, auto_delete=True)
                except ChannelLockedResource:
                    return False
            self._lock = lock
            return True
        finally:
            if self._lock is None:
                await self._link.close_channel(lock)

    async def _exists(self) -> bool:
        channel = await self._link.channel()
        try:
            with self._link.errors():
                try:
                    async with answer_in_time():
                        await channel.declare_queue(self._queue.dead_letters, passive=True)
                except ChannelNotFoundEntity:
                    return False
        finally:
            await self._link.close_channel(channel)
        return True

    async def _receive(self, incoming: DeliveredMessage) -> None:
        letter = dead_letter_of(incoming, self._queue)
        self._twins[letter.handle] += 1
        if (number := self._twins[letter.handle]) > 1:  # the same in every byte, so no matter which is which
            letter = replace(letter, handle=f"{letter.handle}-{number}")
        self._tags[letter.handle] = tag = incoming.delivery_tag or 0
        self._found.append((letter.dead_at or datetime.min.replace(tzinfo=UTC), tag, self._view(letter)))

    async def _get(self, channel: UnderlayChannel) -> bool:
        """Take one letter in hand if there is one that nobody has; answer when all settlements are known."""
        async with answer_in_time():
            incoming = await channel.basic_get(self._queue.dead_letters)
        if not incoming.delivery_tag:
            return False
        await self._receive(incoming)
        return True

    async def replay(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Have the broker carry letters back to their queue."""
        return await self._settle(handles, notices, replay=True)

    async def drop(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Acknowledge letters: they are gone."""
        return await self._settle(handles, notices, replay=False)

    async def _settle(self, handles: Sequence[str], notices: Mapping[str, Message] | None, *, replay: bool) -> int:
        here = [handle for handle in dict.fromkeys(handles) if handle in self._tags]
        if not here or self._channel is None:
            return 0
        if told := [event_publication(notices[handle]) for handle in here if notices and handle in notices]:
            await self._link.publish(told)
        channel = await self._channel.get_underlay_channel()
        end = partial(channel.basic_reject, requeue=False) if replay else channel.basic_ack
        for first in range(0, len(here), _AT_A_TIME):
            with self._link.errors():
                async with answer_in_time():
                    for handle in here[first : first + _AT_A_TIME]:
                        await end(self._tags.pop(handle), wait=False)
                    await self._get(channel)
        return len(here)

    async def lay_back(self) -> None:
        """Let others see what is not settled, and let go of the lock.

        Closing the channel alone does it too, but some time after that has been confirmed.
        """
        if self._channel is not None:
            with suppress(BrokerUnavailableError), self._link.errors():
                async with answer_in_time():
                    channel = await self._channel.get_underlay_channel()
                    await channel.basic_nack(0, multiple=True, requeue=True)  # 0: everything that is not settled
            await self._link.close_channel(self._channel)
        if self._lock is not None:
            with suppress(BrokerUnavailableError), self._link.errors():
                async with answer_in_time():
                    await self._lock.queue_delete(self._lock_name)
            await self._link.close_channel(self._lock)
