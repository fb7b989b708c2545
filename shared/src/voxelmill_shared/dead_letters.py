"""Dead letters for people: finding them, putting them back onto their queues, giving them up.

Nothing here prints or asks. Whoever replays or drops says who it is: index writes it into the audit trail, from an
event that is durable before the letter goes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import UndecodableMessageError, VoxelmillError
from voxelmill_shared.events import (
    DeadLetterDropped,
    DeadLetterEvent,
    DeadLetterReplayed,
    Envelope,
    Event,
    ObjectRef,
    Stage,
    cause,
    open_envelope,
)
from voxelmill_shared.transport.base import (
    HEADER_ERROR_CLASS,
    HEADER_REASON,
    HEADER_SERVICE_VERSION,
    HEADER_TRACE_ID,
    Message,
)
from voxelmill_shared.transport.headers import attempt_of, replays_of
from voxelmill_shared.transport.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from datetime import datetime

    from voxelmill_shared.transport.base import DeadLetter, DeadLetterHold, Transport
    from voxelmill_shared.transport.topology import QueueSpec

DEFAULT_RATE = 50.0
"""Letters a second."""
_MOST_AT_A_TIME = 100
_BATCH_SECONDS = 0.2
UNKNOWN = "unknown"
"""The error class of a letter that says none."""


class NoSuchLetterError(VoxelmillError):
    """No dead letter has a handle that begins so."""


class AmbiguousHandleError(VoxelmillError, ValueError):
    """Several dead letters have handles that begin so."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter tells of itself, without its body.

    `envelope` is without its data, and none if the body is no CloudEvents document. `message_type` and all that follows
    from the event are empty then, or where the event is of no type known here. `size` is the body's, in bytes.
    """

    handle: str
    queue: str
    dead_at: datetime | None
    error_class: str
    reason: str
    attempts: int
    replays: int
    size: int
    trace_id: str
    service_version: str
    message_id: str
    routing_key: str
    message_type: str = ""
    object: ObjectRef | None = None
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    job_id: str = ""
    envelope: Envelope | None = None

    @property
    def service(self) -> str:
        """The service whose queue it is."""
        return self.queue.partition(".")[0]

    @property
    def about(self) -> str:
        """The series, else the object, else nothing."""
        return self.series_instance_uid or (self.object.address() if self.object else "")


def read_letter(dead: DeadLetter) -> Letter:
    """Read what a dead letter tells of itself. Whatever its body and headers are, this gives an answer."""
    message = dead.message
    envelope, event = read_body(message.body)

    def said(header: str) -> str:
        return str(message.headers.get(header, ""))

    return Letter(
        handle=dead.handle,
        queue=dead.queue,
        dead_at=dead.dead_at,
        error_class=said(HEADER_ERROR_CLASS) or UNKNOWN,
        reason=said(HEADER_REASON),
        attempts=attempt_of(message),
        replays=replays_of(message),
        size=len(message.body),
        trace_id=said(HEADER_TRACE_ID) or (envelope.trace_id if envelope else ""),
        service_version=said(HEADER_SERVICE_VERSION),
        message_id=str(envelope.id) if envelope else message.message_id,
        routing_key=message.routing_key,
        message_type=envelope.routing_key if envelope else "",
        envelope=envelope.model_copy(update={"data": {}}) if envelope else None,
        **_of_event(event),
    )


def read_body(body: bytes) -> tuple[Envelope | None, Event | None]:
    """Read a message's body: no envelope if it is none, no event if it is of no type known here."""
    try:
        envelope = Envelope.decode(body)
    except UndecodableMessageError:
        return None, None
    try:
        return envelope, open_envelope(envelope)
    except UndecodableMessageError:
        return envelope, None


def _of_event(event: Event | None) -> dict[str, Any]:
    if event is None:
        return {}
    reference = getattr(event, "object", None)
    return {
        "object": reference if isinstance(reference, ObjectRef) else None,
        "study_instance_uid": str(getattr(event, "study_instance_uid", "")),
        "series_instance_uid": str(getattr(event, "series_instance_uid", "")),
        "job_id": event.job() or "",
    }


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: those that fit every field that is not empty.

    Attributes
    ----------
    services
        Whose queues.
    error_classes
        Why they died.
    series
        Series Instance UIDs.
    since
        Those that died at this moment or later; one that does not say when it died is among them.
    """

    services: frozenset[str] = frozenset()
    error_classes: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    since: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was chosen, so that every letter is meant."""
        return self == Selection()

    def queues(self) -> list[QueueSpec]:
        """Give the queues that must be looked at."""
        return [queue for queue in TOPOLOGY.queues if not self.services or queue.consumer in self.services]

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            (not self.services or letter.service in self.services)
            and (not self.error_classes or letter.error_class in self.error_classes)
            and (not self.series or letter.series_instance_uid in self.series)
            and (self.since is None or letter.dead_at is None or letter.dead_at >= self.since)
        )


EVERYTHING = Selection()


async def look(transport: Transport, selection: Selection = EVERYTHING) -> list[Letter]:
    """Look at dead letters without consuming them: queue by queue, the oldest of each first.

    Raises
    ------
    BrokerUnavailableError
        If the broker is out of reach.
    DeadLettersHeldError
        If another process has the letters of a queue in hand for long: it replays them.
    """
    found: list[Letter] = []
    for queue in selection.queues():
        async with transport.hold(queue, read_letter) as hold:
            found += [letter for letter in hold.seen if selection.takes(letter)]
    return found


def pick(letters: Sequence[Letter], beginning: str) -> Letter:
    """Give the letter whose handle is, or alone begins with, what somebody has typed.

    Raises
    ------
    NoSuchLetterError, AmbiguousHandleError
        If there is none, or more than one.
    """
    found = [letter for letter in letters if letter.handle == beginning]
    found = found or [letter for letter in letters if beginning and letter.handle.startswith(beginning)]
    if not found:
        raise NoSuchLetterError(f"{beginning}: no dead letter has that handle; `voxelmill dlq list` names them")
    if len({letter.handle for letter in found}) > 1:
        raise AmbiguousHandleError(
            f"{beginning}: {len(found)} dead letters have a handle that begins so; type more of it"
        )
    return found[0]


async def fetch(transport: Transport, letter: Letter) -> DeadLetter | None:
    """Give a dead letter with its body and headers, or none if it has gone since it was seen."""

    def only(dead: DeadLetter) -> DeadLetter | None:
        return dead if dead.handle == letter.handle else None

    async with transport.hold(_queue(letter.queue), only) as hold:
        return next((dead for dead in hold.seen if dead is not None), None)


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """The dead letters of one queue: how many, since when, and why."""

    queue: str
    count: int
    oldest: datetime | None
    by_error_class: Mapping[str, int]


def summarise(letters: Iterable[Letter]) -> list[QueueSummary]:
    """Count letters by queue and error class. Queues without letters are left out."""
    by_queue: dict[str, list[Letter]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue, []).append(letter)
    return [
        QueueSummary(
            queue,
            len(found),
            min((letter.dead_at for letter in found if letter.dead_at), default=None),
            dict(Counter(letter.error_class for letter in found).most_common()),
        )
        for queue, found in by_queue.items()
    ]


@dataclass(slots=True)
class Progress:
    """How far a replay or a drop is. It stays right when the work is cancelled: then the rest is where it was.

    `gone` are letters that somebody else has settled since they were seen.
    """

    total: int
    done: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants it, how many letters a second (0: as fast as it goes), and who is told of each step."""

    who: str
    rate: float = DEFAULT_RATE
    told: Callable[[Progress], None] = field(default=lambda _: None)


async def replay(transport: Transport, letters: Sequence[Letter], order: Order) -> Progress:
    """Put letters back onto the queues that they came from: attempt 1, replay count one up, history kept.

    Cancelled, it finishes the batch that it is at. Killed, it has put each letter back or has not.

    Raises
    ------
    UnroutableError
        If no queue wants the events that tell of it: index of this version has never run there. No letter has gone
        without one.
    BrokerUnavailableError, DeadLettersHeldError
        As `look`.
    """
    return await _settle(transport, letters, order, DeadLetterReplayed)


async def drop(transport: Transport, letters: Sequence[Letter], order: Order) -> Progress:
    """Give letters up: they are in no queue any more. Errors as `replay`."""
    return await _settle(transport, letters, order, DeadLetterDropped)


async def _settle(
    transport: Transport, letters: Sequence[Letter], order: Order, kind: type[DeadLetterEvent]
) -> Progress:
    progress = Progress(len(letters))
    order.told(progress)
    by_queue: dict[str, list[Letter]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue, []).append(letter)
    pace = _Pace(order.rate)
    for name, wanted in by_queue.items():
        async with transport.hold(_queue(name), _handle) as hold:
            async for batch in pace.batches(wanted):
                await _whole(_settle_batch(hold, batch, order, kind, progress))
    return progress


async def _settle_batch(
    hold: DeadLetterHold[str], batch: Sequence[Letter], order: Order, kind: type[DeadLetterEvent], progress: Progress
) -> None:
    notices = {letter.handle: _notice(letter, order.who, kind) for letter in batch}
    settle = hold.replay if kind is DeadLetterReplayed else hold.drop
    done = await settle(list(notices), notices)
    progress.done += done
    progress.gone += len(batch) - done
    order.told(progress)


def _notice(letter: Letter, who: str, kind: type[DeadLetterEvent]) -> Message:
    event = kind(
        stage=Stage(letter.service),
        queue=letter.queue,
        handle=letter.handle,
        who=who,
        error_class=letter.error_class,
        attempts=letter.attempts,
        message_type=letter.message_type,
        message_id=letter.message_id,
        object_address=letter.object.address() if letter.object else "",
        study_instance_uid=letter.study_instance_uid,
        series_instance_uid=letter.series_instance_uid,
        job_id=letter.job_id,
        replays=letter.replays,
    )
    token = cause.set(letter.envelope)  # the same trace goes on
    try:
        envelope = Envelope.wrap(event, f"voxelmill/dlq/{who}")
    finally:
        cause.reset(token)
    return Message(envelope.encode(), envelope.routing_key, str(envelope.id))


class _Pace:
    """Deals letters out in batches, so many a second on the whole."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._size = max(1, min(_MOST_AT_A_TIME, int(rate * _BATCH_SECONDS))) if rate else _MOST_AT_A_TIME
        self._next = time.monotonic()

    async def batches(self, letters: Sequence[Letter]) -> AsyncIterator[Sequence[Letter]]:
        for first in range(0, len(letters), self._size):
            batch = letters[first : first + self._size]
            await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            if self._rate:
                self._next = max(self._next, time.monotonic() - 1.0) + len(batch) / self._rate
            yield batch


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Finish what has begun, also when cancelled: else nobody could say how far it came."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)  # that it was cancelled outweighs what it ran into
        raise


def _queue(name: str) -> QueueSpec:
    return next(queue for queue in TOPOLOGY.queues if queue.name == name)


def _handle(dead: DeadLetter) -> str:
    return dead.handle
