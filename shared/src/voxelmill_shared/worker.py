"""The runtime: decode, handle, publish, settle, drain. It alone publishes, acknowledges, retries and dead-letters.

The order is always: the handler's results are durable, its events are confirmed, then the message is acknowledged. A
crash anywhere before the last step means the message comes again, finds its work done and publishes the same events
once more under the same ids.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import structlog

from voxelmill_shared import logs, metrics
from voxelmill_shared.circuit import Circuits, outage_of
from voxelmill_shared.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
    NotEquippedError,
    TransientError,
    UndecodableMessageError,
)
from voxelmill_shared.events import Envelope, Event, cause, open_envelope
from voxelmill_shared.outcome import Done, Outcome, Reject, Retry
from voxelmill_shared.privacy import describe
from voxelmill_shared.progress import ProgressFeed
from voxelmill_shared.settlement import InHand, Settlement
from voxelmill_shared.transport.topology import TOPOLOGY, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from voxelmill_shared.events import JobProgressed
    from voxelmill_shared.service import Service, Subscription
    from voxelmill_shared.transport import base

    Observer = Callable[["Started | Progressed | Settled"], None]

log = structlog.get_logger("voxelmill")


@dataclass(frozen=True, slots=True)
class _HandBack:
    """The answer of a worker that waits for a dependency: the message goes back to its queue, unchanged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    """A worker took a message in hand and could read it."""

    service: str
    event: Event
    attempt: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """The work on a message has come a part further. Observers see every part, the broker only some."""

    service: str
    event: JobProgressed


@dataclass(frozen=True, slots=True)
class Settled:
    """One message that came to its end in this worker. Observers (progress, tests) see every one.

    `outcome` is done, retry, waiting, rejected, exhausted, released or unsettled.
    """

    service: str
    queue: str
    envelope: Envelope | None
    event: Event | None
    outcome: str
    reason: str
    attempt: int
    seconds: float


class Worker:
    """Runs one service on one transport.

    Parameters
    ----------
    service
        What to run.
    transport
        An open transport; the worker declares the topology on it and does not close it.
    ladder
        The waits between attempts; after the last one the message goes to the dead-letter queue.
    grace
        How long a drain waits for work in hand before it is handed back.
    observers
        Called when a message is taken, when its work has come further, and when it is settled; they must not raise.
    patient
        Whether messages wait for a stopped dependency as long as it takes. If not, each such wait spends an attempt,
        so that whoever waits for the end gets an answer.
    progress_seconds
        The least time between two events about the progress of one message.
    """

    def __init__(
        self,
        service: Service,
        transport: base.Transport,
        *,
        ladder: Sequence[timedelta],
        grace: timedelta = timedelta(seconds=25),
        observers: Sequence[Observer] = (),
        patient: bool = True,
        progress_seconds: float = 2.0,
    ) -> None:
        self._service = service
        self._transport = transport
        self._ladder = tuple(ladder)
        self._grace = grace if service.grace is None else min(grace, service.grace)
        self._observers = tuple(observers)
        self._patient = patient
        self._source = f"voxelmill/{service.name}/{socket.gethostname()}/{os.getpid()}"
        self._settlement = Settlement(service, transport, self._ladder, self._source)
        self._progress = ProgressFeed(
            transport, service.stage, self._source, seconds=progress_seconds, watch=self._progressed
        )
        self.circuits = Circuits(service.name, service.checks, transport.check)
        """What is waited for; nothing is taken while one of them is open."""
        self._untaken = asyncio.Event()
        """Set while no consumer runs: a message that is handed back does not come to this worker again at once."""
        # Bound once: a logger of the module looks for its configuration with every line.
        self._log = log.bind()
        self._in_hand: set[asyncio.Task[Any]] = set()
        metrics.IN_HAND.labels(service.name).set_function(self._in_hand.__len__)
        self.consuming = asyncio.Event()
        """Set while messages are taken."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: take nothing new, finish or hand back what is in hand.

        Raises
        ------
        Exception
            Whatever ended a background function of the service: the process must not go on half alive. Else what
            kept a consumer from being cancelled, after the drain.
        """
        ladder = self._ladder
        topology = Topology(tuple(replace(queue, ladder=ladder) for queue in TOPOLOGY.queues))
        await self._transport.declare(topology)
        async with AsyncExitStack() as stack:
            for resource in self._service.resources:
                await stack.enter_async_context(resource)
            background: list[asyncio.Task[None]] = [
                asyncio.create_task(function()) for function in self._service.background
            ]
            stopping = asyncio.create_task(stop.wait())
            consumers: list[base.Consumer] = []
            undrained: list[Exception] = []
            try:
                await self._work(stopping, background, consumers)
            finally:
                self.consuming.clear()
                undrained += await self._drain(consumers)
                await self._progress.close()
                for task in (stopping, *background):
                    task.cancel()
                await asyncio.gather(stopping, *background, return_exceptions=True)
            for error in undrained:
                raise error

    async def _work(
        self, stopping: asyncio.Task[Any], background: list[asyncio.Task[None]], consumers: list[base.Consumer]
    ) -> None:
        """Take messages until told to stop, but for the times in which a dependency is waited for."""
        await self._take(consumers)
        while True:
            self.consuming.set()
            if not await self._go_on_until(self.circuits.opened.wait(), stopping, background):
                return
            self.consuming.clear()
            while consumers:
                await consumers[-1].cancel()
                consumers.pop()
            self._untaken.set()
            while not consumers:
                self.circuits.opened.clear()
                if not await self._go_on_until(self.circuits.closed(), stopping, background):
                    return
                try:
                    await self._take(consumers)
                except BrokerUnavailableError as error:
                    if (outage := outage_of(error)) is not None:
                        await self.circuits.failed(outage)

    async def _go_on_until(
        self, event: Coroutine[Any, Any, Any], stopping: asyncio.Task[Any], background: list[asyncio.Task[None]]
    ) -> bool:
        """Wait for an event; return whether it came, and not the end.

        Raises
        ------
        Exception
            Whatever ended a background function.
        """
        task = asyncio.ensure_future(event)
        try:
            done, _ = await asyncio.wait([stopping, task, *background], return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopping}:
                ended.result()
            return stopping not in done and task in done
        finally:
            task.cancel()

    async def _take(self, consumers: list[base.Consumer]) -> None:
        """Begin to take messages, from every queue or from none."""
        self._untaken.clear()
        try:
            for subscription in self._service.subscriptions:
                queue = replace(subscription.queue, ladder=self._ladder)
                consumers.append(
                    await self._transport.consume(queue, self._callback(subscription), prefetch=subscription.prefetch)
                )
        except BrokerUnavailableError:
            for consumer in consumers:
                await consumer.cancel()
            consumers.clear()
            self._untaken.set()
            raise

    async def _drain(self, consumers: list[base.Consumer]) -> list[Exception]:
        """Stop taking, end what is in hand; return what went wrong with the former, which must not stop the latter."""
        errors: list[Exception] = []
        for consumer in consumers:
            try:
                await consumer.cancel()
            except Exception as error:  # noqa: BLE001 - it is told when everything else has come to its end
                errors.append(error)
        self._untaken.set()
        self.circuits.stop()
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=self._grace.total_seconds())
            for task in late:
                task.cancel()  # its handler is interrupted, the message handed back
            await asyncio.gather(*late, return_exceptions=True)
        return errors

    def _callback(self, subscription: Subscription) -> Callable[[base.Delivery], Coroutine[Any, Any, None]]:
        async def callback(delivery: base.Delivery) -> None:
            # The transport gives every delivery a task of its own, which nobody but the drain cancels.
            task = cast("asyncio.Task[None]", asyncio.current_task())
            self._in_hand.add(task)
            try:
                await self._deliver(subscription, InHand(delivery))
            finally:
                self._in_hand.discard(task)

        return callback

    async def _deliver(self, subscription: Subscription, message: InHand) -> None:
        started = time.monotonic()
        outcome: Outcome | _HandBack
        try:
            try:
                message.envelope = envelope = Envelope.decode(message.delivery.message.body)
                message.event = event = open_envelope(envelope)
            except UndecodableMessageError as error:
                outcome = Reject(str(error), "undecodable")
            else:
                for observer in self._observers:
                    observer(Started(self._service.name, event, message.delivery.attempt))
                with self._progress.of(event, message.delivery.attempt):
                    outcome = await self._handle(subscription, envelope, event)
            if isinstance(outcome, _HandBack):
                await self._untaken.wait()
                word, reason = await self._hand_back(message.delivery, outcome.reason)
            else:
                word, reason = await self._settlement.settle(message, outcome)
        except asyncio.CancelledError:  # by the drain: what remains to be done is to hand the message back
            cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
            word, reason = await self._hand_back(message.delivery)
        self._tell(message, word, reason, time.monotonic() - started)

    async def _handle(self, subscription: Subscription, envelope: Envelope, event: Event) -> Outcome | _HandBack:
        handler = subscription.handlers.get(type(event))
        if handler is None:
            return Done()  # a binding with wildcards brings events that this service has no use for
        token = cause.set(envelope)
        logs.handling.set((self._service.name, envelope))
        try:
            outcome = await handler(event)
        except Exception as error:  # noqa: BLE001 - the runtime is the edge: see `_failed`
            return await self._failed(error)
        else:
            self.circuits.succeeded()
            return outcome
        finally:
            logs.handling.set(None)
            cause.reset(token)

    async def _failed(self, error: Exception) -> Outcome | _HandBack:
        """Say what becomes of a message whose handler raised an error."""
        if (outage := outage_of(error)) is not None:
            if self._patient and await self.circuits.failed(outage):
                return _HandBack(outage.reason)
            return Retry(outage.reason, outage.error_class, spends_attempt=not self._patient)
        if isinstance(error, NotEquippedError):
            # Another worker may have what this one lacks, and this one may get it: the message waits for either.
            return Retry(str(error), "not-equipped", spends_attempt=not self._patient)
        if isinstance(error, TransientError):
            return Retry(str(error), error.error_class)
        # An unforeseen error is a failed attempt, never the end of the consumer.
        log.error("handler broke", exc_info=error)
        return Retry(describe(error), "unexpected")

    def _progressed(self, event: JobProgressed) -> None:
        for observer in self._observers:
            observer(Progressed(self._service.name, event))

    async def _hand_back(self, delivery: base.Delivery, why: str = "draining") -> tuple[str, str]:
        try:
            await delivery.release()
        except DeliveryLostError as error:
            return "unsettled", str(error)
        except BrokerUnavailableError as error:
            # It stays in hand until the transport is closed, or this process ends: then the broker takes it back.
            log.warning("message not handed back", queue=delivery.queue, reason=str(error))
            return "unsettled", str(error)
        return "released", why

    def _tell(self, message: InHand, word: str, reason: str, seconds: float) -> None:
        """Count, write the record of the settlement, and tell the observers."""
        service, delivery, envelope, event = self._service.name, message.delivery, message.envelope, message.event
        kind = event.type if event else "undecodable"
        metrics.settled(service, kind, word).inc()
        metrics.handle_seconds(service, kind).observe(seconds)
        write = self._log.info if word == "done" else self._log.warning
        write(
            "message settled",
            audit=True,
            who=self._source,
            service=service,
            queue=delivery.queue,
            event_type=envelope.routing_key if envelope else kind,
            event_id=str(envelope.id) if envelope else None,
            subject=envelope.subject if envelope else None,
            job=envelope.correlationid if envelope else None,
            trace_id=envelope.trace_id if envelope else None,
            outcome=word,
            reason=reason or None,
            attempt=delivery.attempt,
            seconds=round(seconds, 4),
        )
        if self._observers:
            settled = Settled(service, delivery.queue, envelope, event, word, reason, delivery.attempt, seconds)
            for observer in self._observers:
                observer(settled)
