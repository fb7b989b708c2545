"""Dead letters: list, show, replay, drop. What is done is in the audit trail, with the caller's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from voxelmill_gateway.access.callers import InstallationAdmin, InstallationOperator
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import RETRY_SECONDS, Problem, not_found
from voxelmill_gateway.rest.fields import Limit, Moment, Name, Offset
from voxelmill_gateway.rest.letters import LetterDetail, LetterPage, QueueOut, letter_answer, letter_detail
from voxelmill_gateway.rest.links import next_page
from voxelmill_gateway.rest.models import Answer
from voxelmill_shared import dead_letters
from voxelmill_shared.dead_letters import DEFAULT_RATE, Order, Selection
from voxelmill_shared.errors import UnroutableError
from voxelmill_shared.transport.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_shared.dead_letters import Letter

router = APIRouter(tags=["dead letters"])

_MOST_NAMED: Final = 100
_MOST_HANDLES: Final = 10_000

Short = Annotated[str, StringConstraints(max_length=256)]
Names = Annotated[list[Short], Query(max_length=_MOST_NAMED)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Some = Annotated[list[Short], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class ReplayOrder(BaseModel):
    """Which letters are put back: some by their handles, those that fit every filter, or all of them."""

    model_config = ConfigDict(extra="forbid")

    handles: Annotated[Some, Field(max_length=_MOST_HANDLES)] = Field(default=[], description="whole handles")
    service: Some = Field(default=[], description="of these services")
    error: Some = Field(default=[], description="of these error classes")
    series: Some = Field(default=[], description="about these Series Instance UIDs")
    since: Moment | None = Field(default=None, description="that died then or later")
    all: bool = Field(default=False, description="every dead letter")
    dry_run: bool = Field(default=False, description="say how many, and change nothing")
    rate: float = Field(default=DEFAULT_RATE, ge=0, le=100_000, description="letters a second; 0: as fast as it goes")


class Replayed(Answer):
    """How many letters were meant, and how many are back on their queues."""

    matched: int
    replayed: int
    gone: int = Field(description="settled by somebody else meanwhile")
    missing: list[str] = Field(description="handles that name no dead letter")
    dry_run: bool


@router.get("/dead-letters", operation_id="list_dead_letters", summary="Messages that failed for good")
async def list_dead_letters(
    request: Request,
    response: Response,
    gate: Gate,
    caller: InstallationOperator,
    service: Names = [],  # noqa: B006 - FastAPI copies it for each request
    error: Names = [],  # noqa: B006 - as above
    series: Names = [],  # noqa: B006 - as above
    since: Moment | None = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> LetterPage:
    """Answer the dead letters that fit every filter, and how many of each queue and error class there are."""
    letters = await dead_letters.look(gate.transport, _selection(service, error, series, since))
    await gate.trail.record(caller, "read", detail="dead letters")
    response.headers["Cache-Control"] = "private, no-cache"
    more = offset + limit
    return LetterPage(
        items=[letter_answer(letter) for letter in letters[offset:more]],
        queues=[QueueOut.model_validate(queue, from_attributes=True) for queue in dead_letters.summarise(letters)],
        total=len(letters),
        next=next_page(request, limit=limit, offset=more) if more < len(letters) else None,
    )


@router.get(
    "/dead-letters/{queue}/{handle}", operation_id="get_dead_letter", summary="Everything about one dead letter"
)
async def get_dead_letter(
    queue: Name, handle: Name, response: Response, gate: Gate, caller: InstallationOperator
) -> LetterDetail:
    """Answer why a message died, each attempt, its event, and whether the objects are there that it names."""
    letter = await _letter(gate, queue, handle)
    dead = await dead_letters.fetch(gate.transport, letter)
    if dead is None:
        raise _no_letter()
    await gate.trail.record(
        caller,
        "read",
        study=letter.study_instance_uid,
        series=letter.series_instance_uid,
        job=letter.job_id,
        detail="dead letters",
    )
    response.headers["Cache-Control"] = "no-store"
    return await letter_detail(gate.stores, letter, dead)


@router.post("/dead-letters/replay", operation_id="replay_dead_letters", summary="Put messages back onto their queues")
async def replay_dead_letters(
    order: ReplayOrder, response: Response, gate: Gate, caller: InstallationOperator
) -> Replayed:
    """Put letters back to be tried anew, and answer when that is done. What is under way ends also if nobody waits."""
    filters = _selection(order.service, order.error, order.series, order.since)
    ways = [bool(order.handles), not filters.is_empty, order.all]
    if sum(ways) != 1:
        raise Problem(422, "Which dead letters?", "say handles, or filters, or all: one of the three")
    letters = await dead_letters.look(gate.transport, filters)
    missing: list[str] = []
    if order.handles:
        wanted = set(order.handles)
        letters = [letter for letter in letters if letter.handle in wanted]
        missing = sorted(wanted - {letter.handle for letter in letters})
    response.headers["Cache-Control"] = "no-store"
    done = gone = 0
    if letters and not order.dry_run:
        done, gone = await _settled(gate, caller, letters, order.rate, drop=False)
    return Replayed(matched=len(letters), replayed=done, gone=gone, missing=missing, dry_run=order.dry_run)


@router.delete(
    "/dead-letters/{queue}/{handle}",
    operation_id="drop_dead_letter",
    summary="Give a message up for good",
    status_code=204,
)
async def drop_dead_letter(queue: Name, handle: Name, gate: Gate, caller: InstallationAdmin) -> None:
    """Take a letter out of its queue. Nothing brings it back."""
    letter = await _letter(gate, queue, handle)
    done, _ = await _settled(gate, caller, [letter], 0.0, drop=True)
    if not done:
        raise _no_letter()


def _selection(
    services: Iterable[str], error_classes: Iterable[str], series: Iterable[str], since: Moment | None
) -> Selection:
    known = {queue.consumer for queue in TOPOLOGY.queues}
    if not known.issuperset(services):
        raise Problem(422, "No such service", f"the services with queues are {', '.join(sorted(known))}")
    return Selection(frozenset(services), frozenset(error_classes), frozenset(series), since)


async def _letter(gate: Gateway, queue: str, handle: str) -> Letter:
    """Find a letter by its whole handle."""
    spec = next((spec for spec in TOPOLOGY.queues if spec.name == queue), None)
    if spec is None:
        raise not_found("this queue")
    letters = await dead_letters.look(gate.transport, Selection(services=frozenset({spec.consumer})))
    found = next((letter for letter in letters if (letter.queue, letter.handle) == (queue, handle)), None)
    if found is None:
        raise _no_letter()
    return found


async def _settled(
    gate: Gateway, caller: Caller, letters: Sequence[Letter], rate: float, *, drop: bool
) -> tuple[int, int]:
    """Replay or drop letters; return how many, and how many had gone."""
    settle = dead_letters.drop if drop else dead_letters.replay
    try:
        progress = await settle(gate.transport, letters, Order(caller.who, rate))
    except UnroutableError:
        raise Problem(
            503,
            "Nobody would write it down",
            "index of this version has never run at this broker; start it (voxelmill-index) and try again",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ) from None
    return progress.done, progress.gone


def _no_letter() -> Problem:
    return not_found("this dead letter (it may have been replayed or dropped)")
