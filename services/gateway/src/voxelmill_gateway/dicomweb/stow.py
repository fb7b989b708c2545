"""STOW-RS: instances are sent here (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from voxelmill_gateway.access.callers import Uploader
from voxelmill_gateway.dicomweb.addresses import PREFIX, STUDY, Study, service_of
from voxelmill_gateway.dicomweb.negotiation import DICOM, JSON, MULTIPART, accepted
from voxelmill_gateway.dicomweb.storing import Storing
from voxelmill_gateway.dicomweb.stow_answer import XML, StowAnswer, to_xml
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.multipart import (
    MalformedBodyError,
    MediaType,
    PartBegins,
    PartData,
    PartEnds,
    boundary_of,
    part_events,
)
from voxelmill_gateway.problems import RETRY_SECONDS, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_gateway.multipart import PartEvent

WRITES: Final = 8
"""How many instances are written to the inbox at a time, by all requests together. Each takes up to 1 MiB of memory."""
_DRAINED: Final = 256 << 20
_DRAIN_SECONDS: Final = 10.0

router = APIRouter(prefix=PREFIX, tags=["dicomweb"])

_DESCRIBED: Final[dict[str, Any]] = {
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}},
                DICOM: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
    "response_class": Response,
    "status_code": 200,
    "responses": {
        200: {"description": "all are stored", "content": {JSON: {}, XML: {}}},
        202: {"description": "some are stored; the answer says which not, and why", "content": {JSON: {}, XML: {}}},
        409: {"description": "none is stored; the answer says why", "content": {JSON: {}, XML: {}}},
        **{
            status: {"description": text, "content": {"application/problem+json": {}}}
            for status, text in (
                (400, "the body cannot be divided into parts; what came before that is kept"),
                (406, "no media type of an answer that the client takes"),
                (413, "too large, or too many parts"),
                (415, "not DICOM"),
                (503, "out of reach for now: send it again"),
            )
        },
    },
}


@router.post("/studies", operation_id="store_instances", summary="Store instances", **_DESCRIBED)
async def store_instances(request: Request, gate: Gate, caller: Uploader, project: str | None = None) -> Response:
    """Store the instances of any studies, and say of each what became of it."""
    return await _store(request, Storing(gate, caller, caller.project(project), _writes(request)))


@router.post(STUDY, operation_id="store_study", summary="Store instances of one study", **_DESCRIBED)
async def store_study(
    study: Study, request: Request, gate: Gate, caller: Uploader, project: str | None = None
) -> Response:
    """Store the instances of one study; those of another one are refused, each by itself."""
    return await _store(request, Storing(gate, caller, caller.project(project), _writes(request), study))


async def _store(request: Request, storing: Storing) -> Response:
    try:
        answers_in = _answer_type(request)
        await storing.take(_parts(request))
    except MalformedBodyError as error:
        kept = len(storing.stored)
        detail = f"{error}. {kept} instance(s) were stored before that; sending all of it again does no harm"
        await _drain(request)
        raise Problem(400, "Not a multipart body", detail) from None
    except Problem:
        await _drain(request)
        raise
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    if not storing.stored and not storing.failed:
        raise Problem(400, "No instances", "there is no part in the body; send at least one")
    answer = StowAnswer(service_of(request), storing.stored, storing.failed)
    data_set = answer.data_set()
    headers = {"Cache-Control": "no-store"}
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if answers_in == XML:
        return Response(to_xml(data_set), answer.status, headers, XML)
    return JSONResponse(data_set, answer.status, headers, JSON)


def _parts(request: Request) -> AsyncIterator[PartEvent]:
    """Read the body by its media type.

    Raises
    ------
    Problem
        415 if it is none of those that are taken.
    MalformedBodyError
        If its boundary is none.
    """
    media_type = MediaType.of(request.headers.get("content-type", ""))
    coding = request.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise Problem(415, "Unsupported Content-Encoding", f"send {MULTIPART} as it is, without Content-Encoding")
    if media_type.name == DICOM:
        return _alone(request.stream())
    kind = media_type.parameters.get("type", DICOM)
    if media_type.name != MULTIPART or MediaType.of(kind).name != DICOM:
        raise Problem(415, "Unsupported media type", f'send {MULTIPART}; type="{DICOM}" with one instance in each part')
    return part_events(request.stream(), boundary_of(media_type))


async def _alone(body: AsyncIterator[bytes]) -> AsyncIterator[PartEvent]:
    """Tell of a body that is one instance as of a part (PS3.18 8.6.1.1)."""
    begun = False
    async for piece in body:
        if piece and not begun:
            begun = True
            yield PartBegins({})
        if piece:
            yield PartData(memoryview(piece))
    if begun:
        yield PartEnds()


def _answer_type(request: Request) -> str:
    """Return the media type to answer with.

    Raises
    ------
    Problem
        406 if the client takes none of those that there are.
    """
    for found in accepted(request):
        for media_type, answer in ((JSON, JSON), ("application/json", JSON), (XML, XML)):
            if found.covers(media_type):
                return answer
    raise Problem(406, "No such answer", f"it is there as {JSON} and as {XML}")


async def _drain(request: Request) -> None:
    """Read on for a while, and drop it: a client that is still sending would lose our answer with its connection."""
    if request.headers.get("expect"):
        return  # it waits for a word from us before it sends
    left = _DRAINED
    with suppress(ClientDisconnect, RuntimeError):  # it is gone, or all of it has been read
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for piece in request.stream():
                left -= len(piece)
                if left <= 0:
                    return


def _writes(request: Request) -> asyncio.Semaphore:
    """Return what bounds the writes of all requests of this application together."""
    state = request.app.state
    if not hasattr(state, "stow_writes"):
        state.stow_writes = asyncio.Semaphore(WRITES)
    writes: asyncio.Semaphore = state.stow_writes
    return writes
