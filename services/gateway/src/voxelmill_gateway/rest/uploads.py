"""Uploads: begun with the list of what is to come, sent file by file, straight into a bucket or through here, ended."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response, status

from voxelmill_gateway.access.callers import Role, Uploader, Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem
from voxelmill_gateway.rest.links import next_page
from voxelmill_gateway.rest.upload_models import (
    MOST_FILES,
    FileOut,
    ObjectsOut,
    PartOut,
    PartsAsked,
    PutOut,
    RefusedOut,
    UploadAsked,
    UploadedSeries,
    UploadEnded,
    UploadOut,
)
from voxelmill_gateway.rest.views import job_brief
from voxelmill_gateway.uploads import rows
from voxelmill_gateway.uploads.bucket_inbox import BucketInbox
from voxelmill_gateway.uploads.model import UploadState, planned_parts
from voxelmill_gateway.uploads.outcome import outcome_of
from voxelmill_gateway.uploads.ranges import check_length, span_of
from voxelmill_gateway.uploads.sessions import NewFile, Sessions, check_open
from voxelmill_shared.catalog import search
from voxelmill_shared.concurrency import each
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from datetime import datetime

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.uploads.model import Upload, UploadFile
    from voxelmill_shared.storage.s3_parts import Addresses

router = APIRouter(tags=["uploads"])

UploadId = Annotated[str, Path(max_length=64, pattern=r"^[0-9A-Za-z-]+$", description="an upload")]
Number = Annotated[int, Path(ge=0, le=MOST_FILES, description="a file of it, from 0")]
Direct = Annotated[
    bool | None, Query(description="whether addresses lead straight into the bucket; by default as the gateway is set")
]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        {
            "name": "Content-Range",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": r"^bytes \d{1,15}-\d{1,15}/\d{1,15}$"},
            "description": "of a file that goes on: `bytes first-last/size` (RFC 9110 14.4)",
        }
    ],
}
_BEGUN_AT_A_TIME: Final = 16
_NO_STORE: Final = {"Cache-Control": "no-store"}


@router.post("/uploads", status_code=201, operation_id="begin_upload", summary="Begin an upload of some files")
async def begin_upload(asked: UploadAsked, response: Response, gate: Gate, caller: Uploader) -> UploadOut:
    """Say what is to come, and learn where each file goes.

    Into a folder every file goes through this gateway. Into a bucket it goes straight, by an address that is signed for
    it: whole, or from 64 MiB on in parts, each with an address of its own. PUT /uploads/{id}/files/{n} always works
    instead.
    """
    files = [NewFile(file.name, file.size, file.media_type) for file in asked.files]
    upload, planned = await Sessions(gate).begin(caller.project(asked.project), caller.who, files)
    response.headers.update(_NO_STORE | {"Location": f"/uploads/{upload.upload_id}"})
    return await _answer(gate, upload, planned, planned, direct=asked.direct)


@router.get("/uploads/{upload_id}", operation_id="get_upload", summary="How far an upload is, and what became of it")
async def get_upload(
    upload_id: UploadId,
    request: Request,
    response: Response,
    gate: Gate,
    caller: Viewer,
    direct: Direct = None,
    limit: Annotated[int, Query(ge=0, le=MOST_FILES, description="how many files at most")] = MOST_FILES,
    offset: Annotated[int, Query(ge=0, le=MOST_FILES)] = 0,
) -> UploadOut:
    """Answer what has come of an upload; while it is open, with fresh addresses for the rest, for who may upload.

    Once it is complete: what ingest has made of its files, and the series that they belong to.
    """
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    response.headers.update(_NO_STORE)
    async with reading(gate.engine) as connection:
        page = await rows.files_of(connection, upload_id, limit=limit, offset=offset)
        total, _, _ = await rows.count_files(connection, upload_id)
    if upload.state is UploadState.OPEN:
        page, _ = await sessions.settle(upload, page)
    more = offset + len(page)
    following = next_page(request, limit=limit, offset=more) if page and more < total else None
    writes = upload.state is UploadState.OPEN and caller.role >= Role.UPLOADER
    if writes:
        upload = await sessions.seen_to(upload)
    answer = await _answer(gate, upload, page, page if writes else (), direct=direct, following=following)
    return answer if upload.state is not UploadState.COMPLETE else await _with_outcome(gate, caller, upload, answer)


@router.head(
    "/uploads/{upload_id}/files/{number}",
    status_code=204,
    operation_id="head_upload_file",
    summary="How much of a file has come",
    response_class=Response,
)
async def head_file(upload_id: UploadId, number: Number, gate: Gate, caller: Uploader) -> Response:
    """Answer with `Upload-Offset`: the byte that the next PUT begins with; `Upload-Length` is the whole size."""
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    file = await sessions.find_file(upload, number)
    received = file.size if file.done else 0
    if not file.done and upload.state is UploadState.OPEN:
        received = (await sessions.inbox.received(file)).received
    return _progress(file, received, done=file.done or (received == file.size > 0))


@router.put(
    "/uploads/{upload_id}/files/{number}",
    status_code=204,
    operation_id="put_upload_file",
    summary="The bytes of a file, or the next of them",
    response_class=Response,
    openapi_extra=_BODY,
)
async def put_file(upload_id: UploadId, number: Number, request: Request, gate: Gate, caller: Uploader) -> Response:
    """Take in a file: all of it, or with `Content-Range` what follows on that which is there.

    What came of a request that broke off is kept: ask HEAD where to go on. The answer comes when the bytes are durable.
    """
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    file = await sessions.find_file(upload, number)
    span = span_of(request.headers.get("content-range"), file.size)
    check_length(request.headers.get("content-length"), span)
    taken = await sessions.receive(upload, file, span, request.stream())
    return _progress(file, taken.received, done=taken.etag is not None)


@router.post(
    "/uploads/{upload_id}/files/{number}/parts",
    operation_id="complete_upload_file",
    summary="Put a file together from its parts",
)
async def complete_file(
    upload_id: UploadId, number: Number, asked: PartsAsked, response: Response, gate: Gate, caller: Uploader
) -> FileOut:
    """Have the bucket put the parts together that it was sent. Once more is no error."""
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    file = await sessions.find_file(upload, number)
    response.headers.update(_NO_STORE)
    if file.done:
        return _file(file)
    check_open(upload)
    inbox = sessions.inbox
    if not isinstance(inbox, BucketInbox) or file.multipart_id is None:
        raise Problem(409, "Not in parts", f"file {number} goes whole: send it with PUT")
    named = {part.number: part.etag.strip('"') for part in asked.parts} or None
    stat, wanting = await inbox.put_together(file, named)
    if stat is None:
        raise Problem(
            409,
            "Parts are missing",
            f"file {number}: {len(wanting)} parts have not come, have another size, or another ETag than you say;"
            " send them again",
            parts=wanting[:1000],
        )
    (now,), _ = await sessions.settle(upload, [file])
    return _file(now)


@router.post(
    "/uploads/{upload_id}/complete", status_code=202, operation_id="complete_upload", summary="Say that all has come"
)
async def complete_upload(upload_id: UploadId, response: Response, gate: Gate, caller: Uploader) -> UploadEnded:
    """End an upload. Its series need not wait for more: they are handed on as soon as its files are looked at."""
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    ended = await sessions.complete(upload, caller)
    response.headers.update(_NO_STORE)
    return UploadEnded(upload_id=upload_id, state=ended.state, objects=ended.objects or 0, url=f"/uploads/{upload_id}")


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    operation_id="abort_upload",
    summary="Give an upload up",
    response_class=Response,
)
async def abort_upload(upload_id: UploadId, gate: Gate, caller: Uploader) -> Response:
    """End an upload that is not complete, and remove what has come. Once more is no error."""
    sessions = Sessions(gate)
    upload = await sessions.find(caller.scope(), upload_id)
    await sessions.abort(upload)
    await gate.trail.record(caller, "aborted", project=upload.project, detail=f"upload {upload_id}")
    return Response(None, status.HTTP_204_NO_CONTENT, _NO_STORE)


def _progress(file: UploadFile, received: int, *, done: bool) -> Response:
    headers = {
        "Upload-Offset": str(received),
        "Upload-Length": str(file.size),
        "Upload-Complete": "?1" if done else "?0",
        **_NO_STORE,
    }
    return Response(None, status.HTTP_204_NO_CONTENT, headers)


async def _answer(
    gate: Gateway,
    upload: Upload,
    files: list[UploadFile],
    writable: list[UploadFile] | tuple[()],
    *,
    direct: bool | None,
    following: str | None = None,
) -> UploadOut:
    """Describe an upload, with addresses for those of its files that may be written and are not done."""
    sessions = Sessions(gate)
    async with reading(gate.engine) as connection:
        total, done, received = await rows.count_files(connection, upload.upload_id)
    idle_until = upload.expires(sessions.idle)
    expires: datetime | None = idle_until if upload.state is UploadState.OPEN else None
    to_write = [file for file in writable if not file.done]
    inbox = sessions.inbox
    wanted = gate.settings.gateway_upload_direct if direct is None else direct
    if to_write and wanted and isinstance(inbox, BucketInbox):
        addresses = await inbox.store.parts.addresses(timedelta(seconds=gate.settings.gateway_upload_url_seconds))
        expires = min(idle_until, addresses.until)
        straight = partial(_straight, inbox, upload, addresses)
        found = await each(straight, to_write, _BEGUN_AT_A_TIME)
        where = {file.number: ways for file, ways in zip(to_write, found, strict=True)}
    else:
        where = {file.number: (_through(upload, file), None) for file in to_write}
    return UploadOut(
        upload_id=upload.upload_id,
        project=upload.project,
        kind=upload.kind,
        state=upload.state,
        created=upload.created,
        expires=expires,
        files_total=total,
        files_done=done,
        received=received,
        files=[_file(file, *where.get(file.number, (None, None))) for file in files],
        next=following,
    )


def _file(file: UploadFile, put: PutOut | None = None, parts: list[PartOut] | None = None) -> FileOut:
    return FileOut(number=file.number, size=file.size, received=file.received, done=file.done, put=put, parts=parts)


def _through(upload: Upload, file: UploadFile) -> PutOut:
    return PutOut(url=f"/uploads/{upload.upload_id}/files/{file.number}", headers={})


async def _straight(
    inbox: BucketInbox, upload: Upload, addresses: Addresses, file: UploadFile
) -> tuple[PutOut | None, list[PartOut] | None]:
    planned = planned_parts(file.size)
    if not planned:
        return PutOut(url=addresses.put(file.key, file.size), headers={}), None
    begun = await inbox.begin(upload, file)
    return None, [
        PartOut(
            number=part.number,
            start=part.start,
            length=part.length,
            url=addresses.put_part(file.key, begun, part.number, part.length),
        )
        for part in planned
    ]


async def _with_outcome(gate: Gateway, caller: Caller, upload: Upload, answer: UploadOut) -> UploadOut:
    scope = caller.scope()
    async with reading(gate.engine) as connection:
        became = await outcome_of(connection, scope, upload.upload_id)
        told = await search.progress_of(connection, [one.job.keys for one in became.series if one.job])
    await gate.trail.record(caller, "read", project=upload.project, detail=f"upload {upload.upload_id}")
    objects = ObjectsOut(
        expected=upload.objects or 0,
        settled=became.settled,
        members=became.members,
        refused_total=became.refused_total,
        refused=[
            RefusedOut(number=one.number, status=one.status, reason=one.reason, detail=one.detail)
            for one in became.refused
        ],
    )
    series = [
        UploadedSeries(
            series_instance_uid=one.series_instance_uid,
            study_instance_uid=one.study_instance_uid,
            modality=one.modality,
            instances=one.view.instances,
            job=job_brief(one.job, told[one.job.keys]) if one.job else None,
        )
        for one in became.series
    ]
    return answer.model_copy(update={"objects": objects, "series": series, "series_total": became.series_total})
