"""GET /events: what happens, as server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from voxelmill_gateway.access.callers import Role, Viewer
from voxelmill_gateway.access.standing import standing_of
from voxelmill_gateway.feed import Nothing, TooManyListenersError, Wanted
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import RETRY_SECONDS, Problem
from voxelmill_gateway.rest.fields import Word
from voxelmill_gateway.streaming import Stream, begun

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from voxelmill_gateway.access.standing import Standing
    from voxelmill_gateway.feed import Feed, News

router = APIRouter(tags=["events"])

KINDS: Final = ("object.", "series.", "stage.", "job.")
"""What everybody is told of. Who saw what is the audit trail's to say."""
OF_OPERATORS: Final = ("dead-letter.",)
LONGEST: Final = 900
"""Seconds after which a listener must come again."""
ASKED_AGAIN: Final = 10
"""Seconds after which nothing more is said until the listener's token or key has been looked at once more."""
RETRY_MS: Final = 2000
_EVENT: Final[dict[str, object]] = {
    "type": "object",
    "description": "One event of the stream.",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "an object: what, series_instance_uid, study_instance_uid, job_id, stage, outcome, reason"
            " and occurred; of `job.progressed` the UIDs, job_id, stage, step and percent",
        },
    },
}
_MOST_NUMBER: Final = 2**63 - 1


@router.get(
    "/events",
    operation_id="listen",
    summary="What happens, as server-sent events",
    response_class=Response,
    responses={
        200: {
            "description": "Events named as their type, `series.segmented.v1`, with the number of the audit trail as "
            "their id, and `job.progressed` without an id; a comment when nothing happens.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        }
    },
)
async def listen(
    request: Request,
    gate: Gate,
    caller: Viewer,
    series: Word = "",
    job: Word = "",
    after: Annotated[int | None, Query(ge=0, le=_MOST_NUMBER, description="as Last-Event-ID")] = None,
    wait: Annotated[float, Query(ge=0, le=LONGEST, description="seconds after which it ends; 0: what was missed")] = (
        LONGEST
    ),
    last_event_id: Annotated[str, Header(max_length=32, description="go on after this event")] = "",
) -> Response:
    """Tell what happens to the series of the caller's projects from now on, or from after an event.

    The client comes again when it ends, with the id of the last event that it has got, and misses nothing. A number
    that cannot be read counts as none. It ends when the token or key expires, and soon after a key is revoked.
    """
    operator = caller.role >= Role.OPERATOR and caller.projects is None
    wanted = Wanted(caller.scope(), KINDS + OF_OPERATORS if operator else KINDS, series, job)
    last = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else None
    start = last if last is not None and last <= _MOST_NUMBER else after
    await gate.trail.record(caller, "read", detail="what happens")
    try:
        pieces = await begun(_written(gate.feed, wanted, start, wait, standing_of(request)))
    except TooManyListenersError:
        full = {"Retry-After": str(RETRY_SECONDS)}
        raise Problem(503, "Too many listeners", "this gateway has no room for more; try again", headers=full) from None
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(pieces, 200, headers, "text/event-stream")


async def _written(
    feed: Feed, wanted: Wanted, after: int | None, seconds: float, standing: Standing | None
) -> AsyncGenerator[bytes, None]:
    before = f"retry: {RETRY_MS}\n\n"
    looked = time.monotonic()
    if standing is not None:
        seconds = min(seconds, standing.seconds_left())
    async with aclosing(feed.listen(wanted, after=after, seconds=seconds)) as listening:
        async for news in listening:
            if standing is not None and time.monotonic() - looked >= ASKED_AGAIN:
                if not await standing.holds():
                    return
                looked = time.monotonic()
            yield (before + _block(news)).encode()
            before = ""


def _block(news: News | Nothing) -> str:
    if isinstance(news, Nothing):
        # An id without data is no event, and where to go on from all the same.
        return f": nothing new\nid: {news.number}\n\n"
    number = "" if news.number is None else f"id: {news.number}\n"
    return f"{number}event: {news.name}\ndata: {news.data}\n\n"
