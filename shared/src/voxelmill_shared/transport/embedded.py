"""The transport without a server: one SQLite file, durable, shared by any number of processes of one machine.

Consumers compete for rows; what a killed consumer had in hand is taken back as soon as another one looks (see
`owners`), within about 200 ms. Waits on rungs are wall-clock times in the file, so they go on while nobody runs. The
file must lie on a local disk: SQLite's WAL and `flock` do not work over a network.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from voxelmill_shared.errors import DeliveryLostError
from voxelmill_shared.transport.base import HEADER_ATTEMPT, DeadLetter, Message, QueueCount, T_co
from voxelmill_shared.transport.headers import attempt_of, dead_at_of, dead_headers
from voxelmill_shared.transport.queue_writer import QueueWriter, Subscription
from voxelmill_shared.transport.topology import DELIVERY_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from voxelmill_shared.transport.base import Callback, T
    from voxelmill_shared.transport.queue_file import Claimed, QueueFile
    from voxelmill_shared.transport.topology import QueueSpec, Topology

_PAGE = 100

_T = TypeVar("_T")


class EmbeddedTransport:
    """Durable queues in one file. See `transport.base.Transport` for what each method promises.

    Parameters
    ----------
    path
        The file. Made, with its folder, by the first call; nothing is opened before.
    delivery_limit
        After how many deaths of its consumers a message goes to the dead-letter queue.
    """

    def __init__(self, path: Path, *, delivery_limit: int = DELIVERY_LIMIT) -> None:
        self._writer = QueueWriter(path.absolute(), delivery_limit)

    async def declare(self, topology: Topology) -> None:
        """Make sure that every queue exists. Idempotent; bindings are added, never taken away."""
        await self._writer.call(lambda file: file.declare(topology.queues))

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish all of the messages, or none of them.

        Raises
        ------
        UnroutableError
            If a message is wanted by no queue.
        BrokerUnavailableError
            If the file cannot be written.
        """
        if messages:
            await self._writer.call(lambda file: file.publish(messages))

    async def consume(self, queue: QueueSpec, callback: Callback, *, prefetch: int) -> EmbeddedConsumer:
        """Call `callback` for every message of a queue, at most `prefetch` at a time in hand."""
        consumer = EmbeddedConsumer(self._writer, queue, callback, prefetch)
        await consumer.start()
        return consumer

    async def counts(self) -> list[QueueCount]:
        """How full every queue of the file is; `in_hand` is what all processes hold together."""
        return await self._writer.call(lambda file: file.counts())

    async def dead_letters(self, queue: QueueSpec) -> AsyncIterator[DeadLetter]:
        """Look through the dead letters of a queue, oldest first. Handles stay good until the letter is replayed."""
        last = 0
        while page := await self._page(queue, last):
            for last, message in page:
                yield DeadLetter(str(last), queue.name, message, dead_at_of(message))

    async def _page(self, queue: QueueSpec, after: int) -> list[tuple[int, Message]]:
        return await self._writer.call(lambda file: file.dead_letters(queue.name, after, _PAGE))

    @asynccontextmanager
    async def hold(self, queue: QueueSpec, view: Callable[[DeadLetter], T]) -> AsyncIterator[EmbeddedHold[T]]:
        """Look through the dead letters of a queue, and settle them. Others see them meanwhile, and may be quicker."""
        yield EmbeddedHold(self._writer, queue.name, [view(letter) async for letter in self.dead_letters(queue)])

    async def replay(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Put dead letters back onto their queue in one transaction; handles that name none are not counted."""
        return await EmbeddedHold(self._writer, queue.name, ()).replay(handles)

    async def drop(self, queue: QueueSpec, handles: Sequence[str]) -> int:
        """Give dead letters up in one transaction; handles that name none are not counted."""
        return await EmbeddedHold(self._writer, queue.name, ()).drop(handles)

    async def check(self) -> None:
        """Return if the file can be opened and locked for writing."""
        await self._writer.call(lambda _: None)

    async def close(self) -> None:
        """Hand back what is in hand and close the file."""
        await self._writer.close()


class EmbeddedHold(Generic[T_co]):
    """The dead letters of one queue, see `DeadLetterHold`: each call is one transaction, with its notices.

    Parameters
    ----------
    writer
        The file's thread.
    queue
        The queue's name.
    seen
        What was made of each letter.
    """

    def __init__(self, writer: QueueWriter, queue: str, seen: Sequence[T_co]) -> None:
        self._writer = writer
        self._queue = queue
        self.seen = seen

    async def replay(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Put letters back onto the queue that they came from."""
        return await self._settle(handles, notices, lambda file, numbers: file.replay(self._queue, numbers))

    async def drop(self, handles: Sequence[str], notices: Mapping[str, Message] | None = None) -> int:
        """Give letters up."""
        return await self._settle(handles, notices, lambda file, numbers: file.drop(self._queue, numbers))

    async def _settle(
        self,
        handles: Sequence[str],
        notices: Mapping[str, Message] | None,
        settle: Callable[[QueueFile, Sequence[int]], None],
    ) -> int:
        numbers = [int(handle) for handle in handles if handle.isdecimal() and len(handle) < 19]
        told = notices or {}

        def both(file: QueueFile) -> int:
            found = file.which_are_dead(self._queue, numbers)
            file.publish([told[str(number)] for number in found if str(number) in told])  # first: it may raise
            settle(file, found)
            return len(found)

        return await self._writer.call(both)


class EmbeddedConsumer:
    """A running subscription to a queue of the file."""

    def __init__(self, writer: QueueWriter, queue: QueueSpec, callback: Callback, prefetch: int) -> None:
        self._writer = writer
        self._queue = queue
        self._callback = callback
        self._subscription = Subscription(queue.name, prefetch, self._deliver)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make sure that the queue exists, and take messages from now on."""
        await self._writer.subscribe(self._subscription, lambda file: file.declare([self._queue]))

    async def cancel(self) -> None:
        """Take no more messages. Those in hand stay in hand and can still be settled."""
        await self._writer.unsubscribe(self._subscription)

    def _deliver(self, claimed: Claimed) -> None:
        delivery = EmbeddedDelivery(self._writer, self._subscription, self._queue, claimed)
        task = asyncio.ensure_future(self._callback(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class EmbeddedDelivery:
    """A message in hand."""

    def __init__(self, writer: QueueWriter, subscription: Subscription, queue: QueueSpec, claimed: Claimed) -> None:
        self._writer = writer
        self._subscription = subscription
        self._spec = queue
        self._claimed = claimed
        self._settled = False
        self._lost = False

    @property
    def message(self) -> Message:
        """The message, byte for byte as published."""
        return self._claimed.message

    @property
    def queue(self) -> str:
        """The queue that it was consumed from."""
        return self._claimed.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return attempt_of(self._claimed.message)

    @property
    def redelivered(self) -> bool:
        """Whether a consumer had it before and let go of it or died."""
        return self._claimed.redelivered

    async def ack(self) -> None:
        """Settle: the work is done."""
        await self._settle(lambda file: file.acknowledge(self._claimed.id))

    async def retry(self, rung: int, headers: Mapping[str, str | int]) -> None:
        """Settle: let the message come back after the rung's wait, with `headers` over its own."""
        wait = self._spec.ladder[rung].total_seconds()
        merged = {HEADER_ATTEMPT: self.attempt, **self.message.headers, **headers}
        await self._settle(lambda file: file.retry(self._claimed.id, wait, merged))

    async def dead_letter(self, headers: Mapping[str, str | int]) -> None:
        """Settle: put the message into the dead-letter queue, with `headers` over its own."""
        merged = dead_headers(self.message, headers)
        await self._settle(lambda file: file.dead_letter(self._claimed.id, merged))

    async def release(self) -> None:
        """Settle: hand the message back at once, unchanged."""
        await self._settle(lambda file: file.release(self._claimed.id))

    async def _settle(self, run: Callable[[QueueFile], _T]) -> None:
        if self._settled:
            raise RuntimeError(f"{self.queue}: message {self.message.message_id} is settled already")
        if self._lost or self._writer.is_closed:
            raise DeliveryLostError(f"{self.queue}: message {self.message.message_id} is no longer in our hand")
        try:
            await self._writer.call(run, frees=self._subscription)
        except DeliveryLostError:
            self._lost = True  # its place among those in hand is free, and must not be freed twice
            raise
        self._settled = True
