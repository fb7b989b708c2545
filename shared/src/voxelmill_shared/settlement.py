"""Settling one message: publish what came of it, acknowledge it, try again, or put it into the dead letters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from voxelmill_shared import metrics
from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, UnroutableError
from voxelmill_shared.events import Envelope, Event, StageFailed, StageSkipped, cause
from voxelmill_shared.outcome import Done, Outcome, Reject, Retry
from voxelmill_shared.privacy import addresses_in, describe, without_keys
from voxelmill_shared.transport import base
from voxelmill_shared.transport.headers import history_of, lengthened, replays_of
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta

    from voxelmill_shared.service import Service

    Way = Callable[["InHand", Outcome], Awaitable[tuple[str, str]]]

log = structlog.get_logger("voxelmill")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries to settle while the broker does not answer; they double. There is no last try: a message that
nobody settles would keep its place among those in hand as long as this process lives."""


@dataclass(slots=True)
class InHand:
    """A message in hand, as far as it could be read."""

    delivery: base.Delivery
    envelope: Envelope | None = None
    event: Event | None = None


class Settlement:
    """Settles the messages of one service.

    Parameters
    ----------
    service
        Whose messages they are; it is named in the failures that are published.
    transport
        Where the events go.
    ladder
        The waits between attempts; after the last one the message goes to the dead-letter queue.
    source
        Who publishes, for the envelopes.
    """

    def __init__(self, service: Service, transport: base.Transport, ladder: Sequence[timedelta], source: str) -> None:
        self._service = service
        self._transport = transport
        self._rungs = len(ladder)
        self._source = source

    async def settle(self, message: InHand, outcome: Outcome) -> tuple[str, str]:
        """Settle, however long the broker is away. What cannot be settled as it should ends in a plainer way.

        Returns
        -------
        tuple[str, str]
            In one word how it ended (see `worker.Settled`), and the reason.
        """
        answer = _nameless(message, outcome)
        ways: tuple[Way, ...] = (self._as_answered, self._as_answered, self._as_dead, self._as_released)
        for way in ways:
            try:
                return await self._persist(message, way, answer)
            except DeliveryLostError as error:
                log.warning("message lost out of hand, the broker delivers it again", reason=str(error))
                return "unsettled", str(error)
            except UnroutableError as error:
                answer = Retry(str(error), "unroutable")
            except Exception as error:
                # The edge again: a message must not stay in hand for ever because of an error that nobody foresaw.
                log.exception("settling broke")
                answer = Retry(describe(error), "unexpected")
        return "unsettled", answer.reason if isinstance(answer, Retry) else ""

    async def _persist(self, message: InHand, way: Way, answer: Outcome) -> tuple[str, str]:
        pause = FIRST_PAUSE
        while True:
            try:
                return await way(message, answer)
            except DeliveryLostError:
                raise
            except BrokerUnavailableError as error:
                if pause == FIRST_PAUSE:
                    log.warning("message not settled, trying again", queue=message.delivery.queue, reason=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _as_answered(self, message: InHand, outcome: Outcome) -> tuple[str, str]:
        delivery = message.delivery
        if isinstance(outcome, Done):
            await self._publish(outcome.events, message.envelope)
            await delivery.ack()
            return "done", ""
        attempt = {
            "attempt": delivery.attempt,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "error_class": outcome.error_class,
            "reason": outcome.reason,
        }
        history = lengthened(history_of(delivery.message), attempt)
        headers: dict[str, str | int] = {base.HEADER_HISTORY: history}
        if isinstance(outcome, Retry) and not outcome.spends_attempt and self._rungs:
            # A wait is no attempt: neither the count nor the history grows, however long it lasts.
            await delivery.retry(0, {base.HEADER_ATTEMPT: delivery.attempt})
            return "waiting", outcome.reason
        if isinstance(outcome, Retry) and delivery.attempt <= self._rungs:
            await delivery.retry(delivery.attempt - 1, headers | {base.HEADER_ATTEMPT: delivery.attempt + 1})
            return "retry", outcome.reason
        if not isinstance(message.event, StageFailed):
            await self._publish((self._failed(message, outcome),), message.envelope)
        await self._dead_letter(message, outcome, headers)
        return "rejected" if isinstance(outcome, Reject) else "exhausted", outcome.reason

    async def _as_dead(self, message: InHand, outcome: Outcome) -> tuple[str, str]:
        failure = outcome if isinstance(outcome, Retry) else Retry("")
        await self._dead_letter(message, failure)
        return "exhausted", failure.reason

    async def _as_released(self, message: InHand, outcome: Outcome) -> tuple[str, str]:
        await asyncio.sleep(LONGEST_PAUSE)  # it comes again at once, and perhaps to the same end
        await message.delivery.release()
        return "released", outcome.reason if isinstance(outcome, Retry) else ""

    async def _dead_letter(
        self, message: InHand, outcome: Retry | Reject, headers: Mapping[str, str | int] | None = None
    ) -> None:
        await message.delivery.dead_letter(
            {
                **(headers or {}),
                base.HEADER_ERROR_CLASS: outcome.error_class,
                base.HEADER_REASON: outcome.reason[:1000],
                base.HEADER_SERVICE_VERSION: __version__,
                base.HEADER_TRACE_ID: message.envelope.trace_id if message.envelope else "",
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
            metrics.published(self._service.name, envelope.routing_key).inc()

    def _failed(self, message: InHand, outcome: Retry | Reject) -> StageFailed:
        delivery, envelope = message.delivery, message.envelope
        data = message.event.model_dump(mode="json") if message.event else {}  # of a stranger's document, what we know
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


def _nameless(message: InHand, outcome: Outcome) -> Outcome:
    """Put digests in the place of objects' keys in what an outcome says: reasons travel further than keys may."""
    own = addresses_in(message.envelope.data) if message.envelope else []
    if isinstance(outcome, Retry | Reject):
        return replace(outcome, reason=without_keys(outcome.reason, own))
    # Whatever else a handler has answered is looked at where it is settled.
    if not isinstance(outcome, Done) or not any(isinstance(event, StageSkipped) for event in outcome.events):
        return outcome
    events = (
        event.model_copy(update={"reason": without_keys(event.reason, own)})
        if isinstance(event, StageSkipped)
        else event
        for event in outcome.events
    )
    return Done(tuple(events))
