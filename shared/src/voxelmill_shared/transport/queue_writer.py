"""The one thread that works with a queue file: many operations to one transaction, and messages to those who wait.

A commit costs one fsync, whatever it holds. Operations that come in while a commit runs are done together by the next
one, and the messages that settling made room for are claimed in the same transaction: an acknowledgement and the next
delivery cost one fsync, not two.

The thread sleeps until there is something to do. Messages that other processes put into the file, owners that died and
waits on rungs have no bell to ring, so as long as someone here consumes it looks at the file's change counter
every 25 ms, which costs microseconds.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
import weakref
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, VoxelmillError
from voxelmill_shared.transport.queue_file import QueueFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from voxelmill_shared.transport.queue_file import Claimed

_LOOK_SECONDS = 0.025
_OWNERS_SECONDS = 0.2
_PAUSE_SECONDS = 1.0
_BATCH = 1000

log = structlog.get_logger("voxelmill")

_P = ParamSpec("_P")
_T = TypeVar("_T")

_writers: weakref.WeakSet[QueueWriter] = weakref.WeakSet()
_writers_lock = threading.Lock()


class Subscription:
    """Someone in this process who wants messages of a queue. After `subscribe` it belongs to the thread."""

    def __init__(self, queue_name: str, prefetch: int, deliver: Callable[[Claimed], None]) -> None:
        self.queue = queue_name
        self.prefetch = prefetch
        self.deliver = deliver
        self.loop = asyncio.get_running_loop()
        self.in_hand = 0
        self.active = True


@dataclass(frozen=True, slots=True)
class _Operation:
    run: Callable[[QueueFile], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    frees: Subscription | None
    joins: Subscription | None


class QueueWriter:
    """Runs operations on a queue file and delivers messages.

    Parameters
    ----------
    path
        The queue file; opened by the first operation, and tried again by each one while it cannot be opened.
    delivery_limit
        See `QueueFile`.
    """

    def __init__(self, path: Path, delivery_limit: int) -> None:
        self.path = path
        self._limit = delivery_limit
        self._file: QueueFile | None = None
        self._inbox: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._subscriptions: list[Subscription] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._rung = False
        self._in_trouble = False
        self._next_due: float | None = None
        self._next_owners = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether what was in hand is handed back, now or in a moment."""
        return self._stopping

    async def call(
        self,
        run: Callable[[QueueFile], _T],
        *,
        frees: Subscription | None = None,
        joins: Subscription | None = None,
    ) -> _T:
        """Run an operation in the next transaction; return when it is durable.

        Parameters
        ----------
        run
            Called in the thread, inside a transaction. If it raises a `VoxelmillError`, it has written nothing.
        frees
            The subscription that has one message less in hand when this is durable, or shows that it was lost.
        joins
            The subscription that gets messages from when this is durable.

        Raises
        ------
        BrokerUnavailableError
            If the file cannot be used, or this writer is closed. Nothing was written.
        """
        if self._stopping:
            raise BrokerUnavailableError(f"{self.path}: this transport is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"queues {self.path.name}", daemon=True)
            with _writers_lock:
                _writers.add(self)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._inbox.put(_Operation(run, future, loop, frees, joins))
        return await future

    async def subscribe(self, subscription: Subscription, prepare: Callable[[QueueFile], None]) -> None:
        """Run `prepare`, then deliver messages to a subscription."""
        try:
            await self.call(prepare, joins=subscription)
        except BaseException:
            subscription.active = False  # whoever asked was told that there is none, so nobody would cancel it
            raise

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Deliver nothing more to a subscription. What was delivered is on its loop before this returns."""
        subscription.active = False
        await self.call(lambda _: None)

    async def close(self) -> None:
        """Hand back what is in hand and end the thread."""
        self._stopping = True
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)

    def ring(self) -> None:
        """Another writer of this process has changed the file: look at once."""
        if not self._rung:
            self._rung = True
            self._inbox.put(None)

    def _work(self) -> None:
        while not self._stopping:
            batch = self._next_batch()
            # A loop that ended without closing us: nobody is left to settle anything, so hand everything back.
            self._stopping = self._stopping or any(s.loop.is_closed() for s in self._subscriptions)
            if self._stopping and not batch:
                break
            self._attempt(batch)
        if self._file is not None:
            # Whatever fails here, the kernel lets go of our lock and the others take back what we had in hand.
            with suppress(sqlite3.Error, OSError):
                self._file.close()
        self._fail(self._drain_inbox([]), f"{self.path}: this transport is closed")

    def _attempt(self, batch: list[_Operation]) -> None:
        try:
            if batch or self._has_work():
                self._turn(batch)
            if time.monotonic() >= self._next_owners:
                self._next_owners = time.monotonic() + _OWNERS_SECONDS
            self._in_trouble = False
        except (sqlite3.Error, OSError, BrokerUnavailableError) as error:
            self._fail(batch, f"{self.path}: {error}")
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked; if the thread died, the others would hang
            if len(batch) == 1:
                self._resolve([(batch[0], None, error)])
            elif batch:
                for operation in batch:  # nothing was written: find the one that cannot be
                    self._attempt([operation])
            else:
                self._fail(batch, f"{self.path}: {type(error).__name__}: {error}")

    def _fail(self, batch: list[_Operation], reason: str) -> None:
        self._resolve([(operation, None, BrokerUnavailableError(reason)) for operation in batch])
        if not batch and not self._stopping:
            if not self._in_trouble:
                log.warning("no messages can be taken, trying again", reason=reason)
            self._in_trouble = True
            time.sleep(_PAUSE_SECONDS)

    def _next_batch(self) -> list[_Operation]:
        batch: list[_Operation] = []
        with suppress(queue.Empty):
            first = self._inbox.get(timeout=self._patience())
            if first is None:
                self._rung = False
            else:
                batch.append(first)
        return self._drain_inbox(batch)

    def _drain_inbox(self, batch: list[_Operation]) -> list[_Operation]:
        with suppress(queue.Empty):
            while len(batch) < _BATCH:
                operation = self._inbox.get_nowait()
                if operation is None:
                    self._rung = False
                else:
                    batch.append(operation)
        return batch

    def _patience(self) -> float | None:
        if not any(subscription.active for subscription in self._subscriptions):
            return None
        if self._next_due is None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(0.0, self._next_due - time.time()))

    def _has_work(self) -> bool:
        file = self._file
        if file is None:
            return False
        if time.monotonic() >= self._next_owners and file.gone_owners():
            return True
        if file.changed():
            self._next_due = file.next_due()
        if self._next_due is not None and time.time() >= self._next_due:
            return True
        hungry = {s.queue for s in self._subscriptions if s.active and s.in_hand < s.prefetch}
        return file.has_ready(sorted(hungry))

    def _turn(self, batch: list[_Operation]) -> None:
        """One transaction: the operations, then as many claims as there are free hands."""
        if self._file is None:
            self._file = QueueFile(self.path, self._limit)
        file = self._file
        with file.transaction():
            if time.monotonic() >= self._next_owners:
                file.reap()
            answers = [(operation, *_run(operation, file)) for operation in batch]
            freed = Counter(operation.frees for operation, _, error in answers if operation.frees and _settled(error))
            joined = [operation.joins for operation, _, error in answers if operation.joins and error is None]
            file.promote()
            deliveries = self._claim(file, [*self._subscriptions, *joined], freed)
        for subscription, count in freed.items():
            subscription.in_hand -= count
        for subscription, _ in deliveries:
            subscription.in_hand += 1
        self._subscriptions = [s for s in (*self._subscriptions, *joined) if s.active]
        self._next_due = file.next_due()
        self._resolve(answers, deliveries)
        if batch:
            self._ring_others()

    def _ring_others(self) -> None:
        with _writers_lock:
            others = [writer for writer in _writers if writer is not self and writer.path == self.path]
        for writer in others:
            writer.ring()

    def _claim(
        self, file: QueueFile, subscriptions: Sequence[Subscription], freed: Counter[Subscription]
    ) -> list[tuple[Subscription, Claimed]]:
        """Deal each queue's oldest messages round to the subscriptions that have a hand free."""
        free: dict[str, dict[Subscription, int]] = defaultdict(dict)
        for subscription in subscriptions:
            room = subscription.prefetch - subscription.in_hand + freed[subscription]
            if subscription.active and room > 0:
                free[subscription.queue][subscription] = room
        deliveries = []
        for name, rooms in free.items():
            claimed = iter(file.claim(name, sum(rooms.values())))
            for subscription in cycle(rooms):
                if rooms[subscription] > 0:
                    rooms[subscription] -= 1
                    message = next(claimed, None)
                    if message is None:
                        break
                    deliveries.append((subscription, message))
                elif not any(rooms.values()):
                    break
        return deliveries

    def _resolve(
        self,
        answers: Sequence[tuple[_Operation, Any, Exception | None]],
        deliveries: list[tuple[Subscription, Claimed]] | None = None,
    ) -> None:
        """Tell the loops: deliveries first, then answers, so that a cancelled consumer knows all it has in hand."""
        calls: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = defaultdict(list)
        for subscription, claimed in deliveries or []:
            calls[subscription.loop].append(_bound(subscription.deliver, claimed))
        for operation, result, error in answers:
            calls[operation.loop].append(_bound(_answer, operation.future, result, error))
        for loop, todo in calls.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
                loop.call_soon_threadsafe(_call_all, todo)


def _run(operation: _Operation, file: QueueFile) -> tuple[Any, Exception | None]:
    try:
        return operation.run(file), None
    except VoxelmillError as error:
        return None, error


def _settled(error: Exception | None) -> bool:
    return error is None or isinstance(error, DeliveryLostError)


def _bound(function: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> Callable[[], None]:
    return lambda: function(*args, **kwargs)


def _call_all(todo: list[Callable[[], None]]) -> None:
    for call in todo:
        call()


def _answer(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():  # whoever asked was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
