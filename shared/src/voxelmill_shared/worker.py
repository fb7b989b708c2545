"""The runtime: decode, handle, publish, settle, drain. It alone publishes, acknowledges, retries and dead-letters.

The order is always: the handler's results are durable, its events are confirmed, then the message is acknowledged. A
crash anywhere before the last step means the message comes again, finds its work done and publishes the same events
once more under the same ids.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from voxelmill_shared import metrics
from voxelmill_shared.errors import (
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DeliveryLostError,
    StoreUnavailableError,
    TransientError,
    UndecodableMessageError,
    UnroutableError,
)
from voxelmill_shared.events import Envelope, Event, StageFailed, cause, open_envelope
from voxelmill_shared.outcome import Done, Outcome, Reject, Retry
from voxelmill_shared.transport import base
from voxelmill_shared.transport.headers import history_of, replays_of
from voxelmill_shared.transport.topology import TOPOLOGY, Topology
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from voxelmill_shared.service import Service, Subscription

    Observer = Callable[["Started | Settled"], None]

log = structlog.get_logger("voxelmill")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries to settle while the broker does not answer; they double. There is no last try: a message that
nobody settles would keep its place among those in hand as long as this process lives."""
AWAY = (StoreUnavailableError, DatabaseUnavailableError, BrokerUnavailableError)
"""What a handler raises when a dependency is stopped; waiting for one spends no attempt (DESIGN: guarantee 5)."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker took a message in hand and could read it."""

    service: str
    event: Event
    attempt: int


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
        Called when a message is taken and when it is settled; they must not raise.
    patient
        Whether messages wait for a stopped dependency as long as it takes. If not, each such wait spends an attempt,
        so that whoever waits for the end gets an answer.
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
    ) -> None:
        self._service = service
        self._transport = transport
        self._ladder = tuple(ladder)
        self._grace = grace
        self._observers = tuple(observers)
        self._patient = patient
        self._source = f"voxelmill/{service.name}/{socket.gethostname()}/{os.getpid()}"
        self._in_hand: set[asyncio.Task[Any]] = set()
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
                for subscription in self._service.subscriptions:
                    queue = replace(subscription.queue, ladder=ladder)
                    consumers.append(
                        await self._transport.consume(
                            queue, self._callback(subscription), prefetch=subscription.prefetch
                        )
                    )
                self.consuming.set()
                done, _ = await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopping}:
                    task.result()
            finally:
                self.consuming.clear()
                undrained += await self._drain(consumers)
                for task in (stopping, *background):
                    task.cancel()
                await asyncio.gather(stopping, *background, return_exceptions=True)
            for error in undrained:
                raise error

    async def _drain(self, consumers: list[base.Consumer]) -> list[Exception]:
        """Stop taking, end what is in hand; return what went wrong with the former, which must not stop the latter."""
        errors: list[Exception] = []
        for consumer in consumers:
            try:
                await consumer.cancel()
            except Exception as error:  # noqa: BLE001 - it is told when everything else has come to its end
                errors.append(error)
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=self._grace.total_seconds())
            for task in late:
                task.cancel()  # its handler is interrupted, the message handed back
            await asyncio.gather(*late, return_exceptions=True)
        return errors

    def _callback(self, subscription: Subscription) -> Callable[[base.Delivery], Any]:
        async def callback(delivery: base.Delivery) -> None:
            task = asyncio.ensure_future(self._deliver(subscription, delivery))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)
            with suppress(asyncio.CancelledError):
                await asyncio.shield(task)

        return callback

    async def _deliver(self, subscription: Subscription, delivery: base.Delivery) -> None:
        started = time.monotonic()
        envelope: Envelope | None = None
        event: Event | None = None
        outcome: Outcome
        with metrics.IN_HAND.labels(self._service.name).track_inprogress():
            try:
                try:
                    envelope = Envelope.decode(delivery.message.body)
                    event = open_envelope(envelope)
                except UndecodableMessageError as error:
                    outcome = Reject(str(error), "undecodable")
                else:
                    for observer in self._observers:
                        observer(Started(self._service.name, event, delivery.attempt))
                    outcome = await self._handle(subscription, envelope, event)
                word, reason = await self._settle(delivery, envelope, event, outcome)
            except asyncio.CancelledError:
                await self._hand_back(delivery, envelope, event, started)
                raise
        self._tell(delivery, envelope, event, word, reason, started)

    async def _handle(self, subscription: Subscription, envelope: Envelope, event: Event) -> Outcome:
        handler = subscription.handlers.get(type(event))
        if handler is None:
            return Done()  # a binding with wildcards brings events that this service has no use for
        token = cause.set(envelope)
        context = {
            "service": self._service.name,
            "event_type": envelope.routing_key,
            "trace_id": envelope.trace_id,
            "subject": envelope.subject,
            "job": envelope.correlationid,
        }
        with structlog.contextvars.bound_contextvars(**context):
            try:
                return await handler(event)
            except AWAY as error:
                return Retry(str(error), error.error_class, spends_attempt=not self._patient)
            except TransientError as error:
                return Retry(str(error), error.error_class)
            except Exception as error:
                # The runtime is the edge: an unforeseen error is a failed attempt, never the end of the consumer.
                log.exception("handler broke")
                return Retry(f"{type(error).__name__}: {error}", "unexpected")
            finally:
                cause.reset(token)

    async def _settle(
        self, delivery: base.Delivery, envelope: Envelope | None, event: Event | None, outcome: Outcome
    ) -> tuple[str, str]:
        """Settle, however long the broker is away. What cannot be settled as it should ends in a plainer way."""

        async def as_answered() -> tuple[str, str]:
            return await self._settle_once(delivery, envelope, event, outcome)

        async def as_failed() -> tuple[str, str]:
            return await self._settle_once(delivery, envelope, event, failure)

        async def as_dead() -> tuple[str, str]:
            await self._dead_letter(delivery, envelope, failure)
            return "exhausted", failure.reason

        async def as_released() -> tuple[str, str]:
            await asyncio.sleep(LONGEST_PAUSE)  # it comes again at once, and perhaps to the same end
            await delivery.release()
            return "released", failure.reason

        failure = Retry("")
        for way in (as_answered, as_failed, as_dead, as_released):
            try:
                return await self._persist(delivery, way)
            except DeliveryLostError as error:
                log.warning("message lost out of hand, the broker delivers it again", reason=str(error))
                return "unsettled", str(error)
            except UnroutableError as error:
                failure = Retry(str(error), "unroutable")
            except Exception as error:
                # The edge again: a message must not stay in hand for ever because of an error that nobody foresaw.
                log.exception("settling broke")
                failure = Retry(f"{type(error).__name__}: {error}", "unexpected")
        return "unsettled", failure.reason

    async def _persist(self, delivery: base.Delivery, way: Callable[[], Awaitable[tuple[str, str]]]) -> tuple[str, str]:
        pause = FIRST_PAUSE
        while True:
            try:
                return await way()
            except DeliveryLostError:
                raise
            except BrokerUnavailableError as error:
                if pause == FIRST_PAUSE:
                    log.warning("message not settled, trying again", queue=delivery.queue, reason=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _settle_once(
        self, delivery: base.Delivery, envelope: Envelope | None, event: Event | None, outcome: Outcome
    ) -> tuple[str, str]:
        if isinstance(outcome, Done):
            await self._publish(outcome.events, envelope)
            await delivery.ack()
            return "done", ""
        history = history_of(delivery.message)
        history.append(
            {
                "attempt": delivery.attempt,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "error_class": outcome.error_class,
                "reason": outcome.reason,
            }
        )
        headers: dict[str, str | int] = {base.HEADER_HISTORY: json.dumps(history)}
        if isinstance(outcome, Retry) and not outcome.spends_attempt and self._ladder:
            # A wait is no attempt: neither the count nor the history grows, however long it lasts.
            await delivery.retry(0, {base.HEADER_ATTEMPT: delivery.attempt})
            return "waiting", outcome.reason
        if isinstance(outcome, Retry) and delivery.attempt <= len(self._ladder):
            await delivery.retry(delivery.attempt - 1, headers | {base.HEADER_ATTEMPT: delivery.attempt + 1})
            return "retry", outcome.reason
        if envelope is None or not isinstance(event, StageFailed):
            await self._publish((self._failed(delivery, envelope, event, outcome),), envelope)
        await self._dead_letter(delivery, envelope, outcome, headers)
        return "rejected" if isinstance(outcome, Reject) else "exhausted", outcome.reason

    async def _dead_letter(
        self,
        delivery: base.Delivery,
        envelope: Envelope | None,
        outcome: Retry | Reject,
        headers: Mapping[str, str | int] | None = None,
    ) -> None:
        await delivery.dead_letter(
            {
                **(headers or {}),
                base.HEADER_ERROR_CLASS: outcome.error_class,
                base.HEADER_REASON: outcome.reason[:1000],
                base.HEADER_SERVICE_VERSION: __version__,
                base.HEADER_TRACE_ID: envelope.trace_id if envelope else "",
                base.HEADER_DEAD_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        )

    async def _publish(self, events: Sequence[Event], parent: Envelope | None) -> None:
        if not events:
            return
        token = cause.set(parent)
        try:
            envelopes = [Envelope.wrap(event, self._source) for event in events]
        finally:
            cause.reset(token)
        await self._transport.publish(
            [base.Message(envelope.encode(), envelope.routing_key, str(envelope.id)) for envelope in envelopes]
        )
        for envelope in envelopes:
            metrics.PUBLISHED.labels(self._service.name, envelope.routing_key).inc()

    def _failed(
        self, delivery: base.Delivery, envelope: Envelope | None, event: Event | None, outcome: Retry | Reject
    ) -> StageFailed:
        data = event.model_dump(mode="json") if event else {}  # of a stranger's document, what we know
        reference = data.get("object") or {}
        return StageFailed(
            stage=self._service.stage,
            queue=delivery.queue,
            error_class=outcome.error_class,
            reason=outcome.reason[:1000],
            attempts=delivery.attempt,
            message_type=envelope.routing_key if envelope else "",
            message_id=str(envelope.id) if envelope else delivery.message.message_id,
            object_address=f"{reference['bucket']}/{reference['key']}" if reference else "",
            study_instance_uid=data.get("study_instance_uid", ""),
            series_instance_uid=data.get("series_instance_uid", ""),
            revision=data.get("revision", 0),
            job_id=data.get("job_id", ""),
            replays=replays_of(delivery.message),
        )

    async def _hand_back(
        self, delivery: base.Delivery, envelope: Envelope | None, event: Event | None, started: float
    ) -> None:
        word, reason = "released", "draining"
        try:
            await delivery.release()
        except DeliveryLostError as error:
            word, reason = "unsettled", str(error)
        except BrokerUnavailableError as error:
            # It stays in hand until the transport is closed, or this process ends: then the broker takes it back.
            log.warning("message not handed back", queue=delivery.queue, reason=str(error))
            word, reason = "unsettled", str(error)
        self._tell(delivery, envelope, event, word, reason, started)

    def _tell(
        self,
        delivery: base.Delivery,
        envelope: Envelope | None,
        event: Event | None,
        word: str,
        reason: str,
        started: float,
    ) -> None:
        seconds = time.monotonic() - started
        kind = envelope.routing_key if envelope else "undecodable"
        metrics.SETTLED.labels(self._service.name, kind, word).inc()
        metrics.HANDLE_SECONDS.labels(self._service.name, kind).observe(seconds)
        level = log.info if word == "done" else log.warning
        level(
            "message settled",
            audit=True,
            who=self._source,
            service=self._service.name,
            queue=delivery.queue,
            event_type=kind,
            event_id=str(envelope.id) if envelope else None,
            subject=envelope.subject if envelope else None,
            job=envelope.correlationid if envelope else None,
            trace_id=envelope.trace_id if envelope else None,
            outcome=word,
            reason=reason or None,
            attempt=delivery.attempt,
            seconds=round(seconds, 4),
        )
        settled = Settled(self._service.name, delivery.queue, envelope, event, word, reason, delivery.attempt, seconds)
        for observer in self._observers:
            observer(settled)
