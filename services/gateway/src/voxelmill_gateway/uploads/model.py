"""An upload and its files, as the gateway's tables hold them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from voxelmill_shared.storage.s3_upload import part_bytes

if TYPE_CHECKING:
    from datetime import datetime, timedelta

IN_PARTS: Final = 64 << 20
"""From this size on a file goes to a bucket in parts, bytes."""


class UploadState(StrEnum):
    """How far an upload is."""

    OPEN = "open"
    COMPLETE = "complete"
    ABORTED = "aborted"


class UploadKind(StrEnum):
    """By which door it came."""

    REST = "rest"
    STOW = "stow"
    PROTOTYPE = "prototype"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload. `objects` is how many files it has, once that is known; `changed` when somebody last saw to it."""

    upload_id: str
    project: str
    who: str
    kind: UploadKind
    state: UploadState
    objects: int | None
    created: datetime
    changed: datetime

    def expires(self, idle: timedelta) -> datetime:
        """When it is aborted if nobody sees to it."""
        return self.changed + idle


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload.

    `size` is what was declared, `received` what is known to have come, both in bytes; `multipart_id` is the bucket's
    name of the upload in parts that it comes by; `etag` is known once it is `done`.
    """

    number: int
    key: str
    size: int
    media_type: str
    received: int = 0
    multipart_id: str | None = None
    etag: str | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """One part of a large file. `number` is from 1; `start` and `length` in bytes."""

    number: int
    start: int
    length: int


def planned_parts(size: int) -> list[PlannedPart]:
    """Return the parts in which a file of `size` bytes goes to a bucket; none for one that goes whole."""
    if size < IN_PARTS:
        return []
    step = part_bytes(size)
    return [
        PlannedPart(number, start, min(step, size - start))
        for number, start in enumerate(range(0, size, step), start=1)
    ]
