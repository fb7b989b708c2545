"""What the upload routes are asked and answer."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from voxelmill_gateway.rest.models import Answer, JobBrief
from voxelmill_gateway.uploads.model import UploadKind, UploadState
from voxelmill_shared.catalog import ObjectStatus

MOST_FILES = 20_000
_MOST_BYTES = 5 << 40
_MOST_PARTS = 10_000


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileAsked(_Asked):
    """One file that is to come."""

    name: str = Field("", max_length=1024, description="only a known suffix of it is kept: .dcm, .zip, .nii, .nii.gz")
    size: int = Field(ge=0, le=_MOST_BYTES, description="bytes")
    media_type: str = Field("", max_length=255)


class UploadAsked(_Asked):
    """An upload that is to begin."""

    project: str | None = Field(None, max_length=63, description="whose it is; the caller's own if he has only one")
    files: list[FileAsked] = Field(min_length=1, max_length=MOST_FILES)
    direct: bool | None = Field(
        None, description="whether files go straight into the bucket, where it is one; null: as the gateway is set"
    )


class PartAsked(_Asked):
    """A part that its sender has put into the bucket, with the ETag that the bucket answered."""

    number: int = Field(ge=1, le=_MOST_PARTS)
    etag: str = Field(min_length=1, max_length=128, pattern=r'^"?[0-9A-Za-z+/=_-]+"?$')


class PartsAsked(_Asked):
    """The parts of a file that are there. Without any, those that came last are taken."""

    parts: list[PartAsked] = Field(default=[], max_length=_MOST_PARTS)


class PutOut(Answer):
    """Where a file's bytes go with PUT."""

    url: str
    headers: dict[str, str] = Field(description="what the request must have besides")


class PartOut(Answer):
    """Where one part of a file goes with PUT: `length` bytes from `start` on."""

    number: int
    start: int
    length: int
    url: str


class FileOut(Answer):
    """One file of an upload. `put` is for the whole file, `parts` are instead of it; both null once it is done."""

    number: int
    size: int
    received: int
    done: bool
    put: PutOut | None = None
    parts: list[PartOut] | None = None


class RefusedOut(Answer):
    """An object that was not taken, and why; `number` is null for what came out of an archive."""

    number: int | None
    status: ObjectStatus
    reason: str
    detail: str


class ObjectsOut(Answer):
    """What became of the files. `settled` are looked at, `refused` among them; `members` came out of archives."""

    expected: int
    settled: int
    members: int
    refused_total: int
    refused: list[RefusedOut]


class UploadedSeries(Answer):
    """A series of which something came with the upload, with its current job."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    instances: int
    job: JobBrief | None


class UploadOut(Answer):
    """An upload. `files` is a page of them; `objects` and `series` are there once it is complete."""

    upload_id: str
    project: str
    kind: UploadKind
    state: UploadState
    created: datetime
    expires: datetime | None = Field(
        description="until when addresses hold, and when it is aborted if nobody sees to it; ask again before"
    )
    files_total: int
    files_done: int
    received: int = Field(description="bytes of all files")
    files: list[FileOut]
    next: str | None = Field(description="the address of the next page of files")
    objects: ObjectsOut | None = None
    series_total: int = 0
    series: list[UploadedSeries] = Field(default=[])


class UploadEnded(Answer):
    """An upload that is complete."""

    upload_id: str
    state: UploadState
    objects: int
    url: str
