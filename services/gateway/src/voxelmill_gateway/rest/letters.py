"""What the interface says of a dead letter: what `voxelmill dlq` says, without the lines of the log."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from voxelmill_gateway.rest.models import Answer
from voxelmill_shared import dead_letters
from voxelmill_shared.errors import ObjectMissingError, TransientError, UnsafeKeyError
from voxelmill_shared.events import DocumentRef, ObjectRef
from voxelmill_shared.privacy import describe
from voxelmill_shared.storage.keys import printable
from voxelmill_shared.transport.headers import history_of

if TYPE_CHECKING:
    from voxelmill_shared.dead_letters import Letter
    from voxelmill_shared.events import Event
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.stores import Stores
    from voxelmill_shared.transport.base import DeadLetter

_SHOWN_BYTES: Final = 512
"""How much of a body is shown that cannot be decoded."""


class LetterOut(Answer):
    """One dead letter. What it does not say of itself is empty."""

    handle: str
    queue: str
    service: str
    dead_at: datetime | None
    error_class: str
    reason: str
    attempts: int
    replays: int
    message_type: str
    message_id: str
    size: int = Field(description="of its body, in bytes")
    about: str = Field(description="the series, else the object")
    object: str
    study_instance_uid: str
    series_instance_uid: str
    job_id: str
    trace_id: str
    service_version: str


class QueueOut(Answer):
    """The dead letters of one queue."""

    queue: str
    count: int
    oldest: datetime | None
    by_error_class: dict[str, int]


class LetterPage(Answer):
    """A page of dead letters, queue by queue, the oldest of each first; `queues` counts all that fit."""

    items: list[LetterOut]
    queues: list[QueueOut]
    total: int
    next: str | None


class AttemptOut(Answer):
    """An earlier attempt."""

    attempt: int | None
    at: str
    error_class: str
    reason: str


class ObjectOut(Answer):
    """Where something that the event names is now. `exists` and `same` are null where that is not known."""

    what: str
    address: str
    exists: bool | None
    same: bool | None = Field(description="whether it has the content that the event means")
    size: int | None
    modified: datetime | None
    reason: str


class LetterDetail(LetterOut):
    """Everything about one dead letter. A body that is no event is shown by its beginning, escaped."""

    history: list[AttemptOut]
    event: dict[str, Any] | None
    begins: str
    objects: list[ObjectOut]


def letter_answer(letter: Letter) -> LetterOut:
    """Return a letter as it is listed."""
    return LetterOut(**_fields(letter))


def _fields(letter: Letter) -> dict[str, Any]:
    return {
        "handle": letter.handle,
        "queue": letter.queue,
        "service": letter.service,
        "dead_at": letter.dead_at,
        "error_class": printable(letter.error_class),
        "reason": printable(letter.reason),
        "attempts": letter.attempts,
        "replays": letter.replays,
        "message_type": letter.message_type,
        "message_id": printable(letter.message_id),
        "size": letter.size,
        "about": printable(letter.about),
        "object": printable(letter.object.address()) if letter.object else "",
        "study_instance_uid": letter.study_instance_uid,
        "series_instance_uid": letter.series_instance_uid,
        "job_id": letter.job_id,
        "trace_id": letter.trace_id,
        "service_version": printable(letter.service_version),
    }


async def letter_detail(stores: Stores, letter: Letter, dead: DeadLetter) -> LetterDetail:
    """Look where everything is that a letter names, and return all that is known of it."""
    envelope, event = dead_letters.read_body(dead.message.body)
    body = dead.message.body[:_SHOWN_BYTES]
    return LetterDetail(
        **_fields(letter),
        history=[_attempt(entry) for entry in history_of(dead.message)],
        event=envelope.model_dump(mode="json", exclude_none=True) if envelope else None,
        begins="" if envelope else printable(body.decode("utf-8", "backslashreplace")),
        objects=await _objects(stores, event) if event is not None else [],
    )


def _attempt(entry: dict[str, Any]) -> AttemptOut:
    number = entry.get("attempt")
    said = {name: printable(str(entry.get(name, ""))) for name in ("at", "error_class", "reason")}
    return AttemptOut(attempt=number if isinstance(number, int) else None, **said)


async def _objects(stores: Stores, event: Event) -> list[ObjectOut]:
    found = []
    for name, value in event:
        if isinstance(value, ObjectRef):
            try:
                store: ObjectStore | None = stores.of(value)
            except ObjectMissingError:
                store = None
            found.append(await _look(name, value.address(), store, value.key, value))
        elif isinstance(value, DocumentRef):
            address = f"{stores.results.bucket}/{value.key}"
            found.append(await _look(name, address, stores.results, value.key, None))
    return found


async def _look(what: str, address: str, store: ObjectStore | None, key: str, meant: ObjectRef | None) -> ObjectOut:
    known: dict[str, Any] = {"exists": None, "same": None, "size": None, "modified": None, "reason": ""}
    if store is None:
        known["reason"] = "no store of this installation has that name"
    else:
        try:
            stat = await store.head(key)
        except ObjectMissingError:
            known["exists"] = False
        except (TransientError, UnsafeKeyError) as error:
            known["reason"] = describe(error)
        else:
            same = None if meant is None else (stat.size, stat.etag) == (meant.size, meant.etag)
            known |= {"exists": True, "same": same, "size": stat.size, "modified": stat.modified}
    return ObjectOut(what=what, address=printable(address), **known)
