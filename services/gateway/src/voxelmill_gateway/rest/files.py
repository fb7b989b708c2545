"""GET and HEAD /files/{job_id}/{name}: the bytes of one result file."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem, not_found
from voxelmill_gateway.ranges import UnsatisfiableRangeError, asked_range, has_it
from voxelmill_gateway.rest.artefacts import find_file
from voxelmill_gateway.rest.fields import JobId, Name
from voxelmill_gateway.streaming import Stream, begun, pieces_of
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.rest.artefacts import StoredFile

router = APIRouter(tags=["files"])

IMMUTABLE: Final = "private, max-age=31536000, immutable"
"""The name holds the job, and the job's name is made from all that goes into it (RFC 8246)."""
REVALIDATED: Final = "private, no-cache"
PRESIGNED: Final = timedelta(minutes=5)
"""How long an address into the bucket holds: long enough for a slow client to begin."""
_SHOWN: Final = re.compile(r"image/(?!svg)[\w.+-]+|application/json")
"""What a browser shows by itself, and what can do nothing there."""

Download = Annotated[bool, Query(description="to be saved as a file, whatever it is")]
_BYTES: Final = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_ANSWERS: Final[dict[int | str, dict[str, object]]] = {
    200: {"description": "the file, in its own media type", "content": {"*/*": {}}},
    206: {"description": "a range of it", "content": {"*/*": {}}},
    304: {"description": "the client has it"},
    307: {"description": "it is to be fetched from the object store, at an address that holds for minutes"},
    416: {"description": "the range begins after the end"},
}


@router.get(
    "/files/{job_id}/{name:path}",
    operation_id="get_file",
    summary="The bytes of one result file",
    response_class=Response,
    responses=_ANSWERS,
)
async def get_file(
    job_id: JobId, name: Name, request: Request, gate: Gate, caller: Viewer, download: Download = False
) -> Response:
    """Answer a result file, or a range of it.

    Where the results are in a bucket, the answer leads there, if the gateway's settings allow it; a page of this host
    gets the bytes from here, for a bucket does not let the scripts of others read it.
    """
    found = await _found(gate, caller, job_id, name)
    await _record(gate, caller, "download", found)
    headers = _headers(found, download=download)
    etag = headers["ETag"]
    if has_it(request.headers, etag):
        return Response(None, 304, {name: headers[name] for name in ("ETag", "Cache-Control", "Vary")})
    store = gate.stores.results
    if isinstance(store, S3Store) and gate.settings.gateway_redirect and not _from_our_page(request):
        return RedirectResponse(await _presigned(store, found, headers), 307, {"Cache-Control": "no-store"})
    size = await _size(gate, found)
    try:
        part = asked_range(request.headers, size, etag)
    except UnsatisfiableRangeError:
        beyond = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, "Range not satisfiable", f"the file has {size} bytes", headers=beyond) from None
    if part is None:
        headers["Content-Length"] = str(size)
        pieces = pieces_of(store, found.key, size=size)
        return Stream(await begun(pieces), 200, headers, found.media_type)
    headers |= {"Content-Length": str(part.length), "Content-Range": part.content_range(size)}
    pieces = pieces_of(store, found.key, part.first, part.length, size=size)
    return Stream(await begun(pieces), 206, headers, found.media_type)


@router.head(
    "/files/{job_id}/{name:path}",
    operation_id="head_file",
    summary="Size, type and digest of one result file",
    response_class=Response,
    responses={200: _ANSWERS[200], 304: _ANSWERS[304]},
)
async def head_file(
    job_id: JobId, name: Name, request: Request, gate: Gate, caller: Viewer, download: Download = False
) -> Response:
    """Answer what GET would, without the bytes; a range is not looked at."""
    found = await _found(gate, caller, job_id, name)
    await _record(gate, caller, "read", found)
    headers = _headers(found, download=download)
    if has_it(request.headers, headers["ETag"]):
        return Response(None, 304, {name: headers[name] for name in ("ETag", "Cache-Control", "Vary")})
    headers["Content-Length"] = str(await _size(gate, found))
    return Response(None, 200, headers, found.media_type)


async def _found(gate: Gateway, caller: Caller, job_id: str, name: str) -> StoredFile:
    found = await find_file(gate, caller.scope(), job_id, name)
    if found is None:
        raise not_found("this file of this job")
    return found


async def _record(gate: Gateway, caller: Caller, action: str, found: StoredFile) -> None:
    job = found.job
    await gate.trail.record(
        caller, action, study=job.study_instance_uid, series=job.keys.series_instance_uid, job=job.job_id
    )


async def _size(gate: Gateway, found: StoredFile) -> int:
    return found.size if found.size is not None else (await gate.stores.results.head(found.key)).size


def _headers(found: StoredFile, *, download: bool) -> dict[str, str]:
    kind = "inline" if _SHOWN.fullmatch(found.media_type) and not download else "attachment"
    return {
        "ETag": f'"{found.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": IMMUTABLE if found.lasting else REVALIDATED,
        "Content-Disposition": f'{kind}; filename="{file_name(found.name)}"',
        # What the answer is depends on who asks (a page of ours, or not).
        "Vary": "Sec-Fetch-Site",
    }


def file_name(name: str) -> str:
    """Return the name under which a file may be saved: its last part, of letters and digits that every system takes."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2]).lstrip(".") or "file"


def _from_our_page(request: Request) -> bool:
    """Whether a browser asks for a page of this host, and not because somebody follows a link (Fetch Metadata)."""
    headers = request.headers
    return headers.get("sec-fetch-site") == "same-origin" and headers.get("sec-fetch-mode") != "navigate"


async def _presigned(store: S3Store, found: StoredFile, headers: dict[str, str]) -> str:
    addresses = await store.parts.addresses(PRESIGNED)
    query = {
        "response-content-type": found.media_type,
        "response-content-disposition": headers["Content-Disposition"],
        "response-cache-control": headers["Cache-Control"],
    }
    return addresses.signer.address("GET", addresses.full(found.key), query=query)
