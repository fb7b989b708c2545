"""Two of the four calls of the first web prototype, in its shape, over the same code as everything else.

The other two, `GET /files/{jobId}/{filename}` and `GET /healthz`, are those of the interface itself. The prototype's
`jobId` is an upload here: what comes of it is found by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from voxelmill_gateway.access.callers import Uploader
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem
from voxelmill_gateway.processing import RequestStatus, request_for_upload
from voxelmill_gateway.rest.models import Answer
from voxelmill_gateway.uploads.content import HEAD_BYTES, declared_suffix, suffix_of_content
from voxelmill_gateway.uploads.form import FileForm
from voxelmill_gateway.uploads.model import UploadKind
from voxelmill_gateway.uploads.pieces import after, read_ahead
from voxelmill_gateway.uploads.sessions import Sessions
from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.plan import MODEL_REVISIONS, ModelName, Plan, Resolution

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_gateway.uploads.model import Upload

router = APIRouter(tags=["prototype"])

_READ_IN_VAIN: Final = 16 << 20
_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "filename": {"type": "string"},
                    },
                }
            }
        },
    }
}


class Uploaded(Answer):
    """The file is there."""

    ok: Literal[True] = True
    jobId: str  # noqa: N815 - the prototype's name


class SegmentationAsked(BaseModel):
    """What the prototype asks for. Which device is used is for the worker to know."""

    model_config = ConfigDict(frozen=True)

    jobId: str = Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")  # noqa: N815 - the prototype's name
    device: str = Field("", max_length=32, pattern=r"^[0-9A-Za-z:._-]*$", description="not looked at")
    fast: bool = False
    reduction_percent: int = Field(90, ge=0, le=99)


class SegmentationRequested(Answer):
    """The job is asked for."""

    ok: Literal[True] = True
    jobId: str  # noqa: N815 - the prototype's name
    status: RequestStatus


@router.post(
    "/upload", operation_id="upload_one_file", summary="Send one file and have it taken in", openapi_extra=_FORM
)
async def upload_file(request: Request, response: Response, gate: Gate, caller: Uploader) -> Uploaded:
    """Take in one DICOM, NIfTI or zip file from a form; it goes into the inbox as it comes, and ingest is told."""
    form = FileForm(request.headers.get("content-type", ""), request.stream())
    pieces = form.file()
    head = await read_ahead(pieces, HEAD_BYTES)
    by_content = suffix_of_content(head[:HEAD_BYTES])
    if by_content is None:
        await _read_to_the_end(pieces)
        raise Problem(
            415,
            "Nothing that is taken here",
            "by its first bytes it is neither DICOM, NIfTI, zip nor tar; send one of these",
        )
    sessions = Sessions(gate)
    upload, _ = await sessions.begin(caller.project(), caller.who, kind=UploadKind.PROTOTYPE)
    await _take(sessions, upload, by_content or declared_suffix(form.name), after(head, pieces))
    await sessions.complete(upload, caller)
    response.headers["Cache-Control"] = "no-store"
    return Uploaded(jobId=upload.upload_id)


@router.post("/process/totalseg", operation_id="request_totalseg", summary="Segment an upload with TotalSegmentator")
async def request_totalseg(
    asked: SegmentationAsked, response: Response, gate: Gate, caller: Uploader
) -> SegmentationRequested:
    """Ask for TotalSegmentator's job of what was uploaded."""
    model = ModelName.TOTALSEGMENTATOR
    plan = Plan(
        model=model,
        model_revision=MODEL_REVISIONS[model],
        reduction_percent=asked.reduction_percent,
        resolution=Resolution.FAST if asked.fast else None,
    )
    requested = await request_for_upload(gate, caller, asked.jobId, plan)
    response.headers["Cache-Control"] = "no-store"
    return SegmentationRequested(jobId=asked.jobId, status=requested.status)


async def _take(sessions: Sessions, upload: Upload, suffix: str, pieces: AsyncIterator[bytes]) -> None:
    """Take in the file; if that fails, so does the upload."""
    try:
        await sessions.add_whole(upload, 0, suffix, pieces)
    except (Problem, VoxelmillError, ClientDisconnect):
        await sessions.abort(upload)
        raise


async def _read_to_the_end(pieces: AsyncIterator[bytes]) -> None:
    """Read on in a body that is refused, but not for ever: a client that is still sending would not see the answer."""
    left = _READ_IN_VAIN
    async for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
