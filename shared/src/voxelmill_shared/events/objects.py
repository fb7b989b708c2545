"""Events about one object in a bucket, and about an upload as a whole."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from voxelmill_shared.events.envelope import Event


class ObjectRef(BaseModel):
    """Where an object lies and which content of it is meant.

    `bucket` is the store's name (`Stores.of`), `key` is raw (never URL-encoded), `etag` is without quotes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    bucket: str
    key: str
    etag: str
    size: int = Field(ge=0)
    version_id: str | None = None

    def address(self) -> str:
        """`bucket/key`, for people and as an event's subject."""
        return f"{self.bucket}/{self.key}"

    def content(self) -> str:
        """Name the content: two objects with the same content key hold the same bytes."""
        return f"{self.etag}:{self.size}"


class ObjectUploaded(Event):
    """A hint that an object is in a bucket. It may be wrong, late or repeated: ingest looks for itself.

    `upload_id` ties objects to an `UploadCompleted`.
    """

    type: ClassVar[str] = "object.uploaded.v1"

    object: ObjectRef
    found_by: str = Field(description="notification, reconciler, command, archive, gateway or conflict")
    upload_id: str | None = None

    def subject(self) -> str:
        """The object's address."""
        return self.object.address()

    def content_key(self) -> str:
        """Content, version and upload: the same bytes in another upload are another fact."""
        return f"{self.object.content()}:{self.object.version_id or ''}:{self.upload_id or ''}"


class UploadCompleted(Event):
    """Evidence of completeness: everything of this upload has been announced.

    `objects` is how many `ObjectUploaded` events carry this `upload_id`.
    """

    type: ClassVar[str] = "upload.completed.v1"

    upload_id: str
    objects: int = Field(ge=0)

    def subject(self) -> str:
        """The upload's id."""
        return self.upload_id

    def content_key(self) -> str:
        """The number of objects."""
        return str(self.objects)


class ObjectKind(StrEnum):
    """What an accepted object is."""

    DICOM = "dicom"
    NIFTI = "nifti"
    ARCHIVE = "archive"


class ObjectValidated(Event):
    """Ingest has read the object and takes it.

    For an archive, `members` says how many objects came out of it, and the UIDs are empty.
    """

    type: ClassVar[str] = "object.validated.v1"

    object: ObjectRef
    kind: ObjectKind
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""
    transfer_syntax_uid: str = ""
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 1
    members: int = 0
    warnings: tuple[str, ...] = ()
    upload_id: str | None = None

    def subject(self) -> str:
        """The object's address."""
        return self.object.address()

    def content_key(self) -> str:
        """The object's content and upload."""
        return f"{self.object.content()}:{self.upload_id or ''}"


class Severity(StrEnum):
    """How bad it is: `reject` means broken, `skip` means sound but not an image for this pipeline."""

    REJECT = "reject"
    SKIP = "skip"


class ObjectRejected(Event):
    """Ingest does not take the object.

    `reason` is a word of the documented catalogue, `detail` is one line for people.
    """

    type: ClassVar[str] = "object.rejected.v1"

    object: ObjectRef
    severity: Severity
    reason: str
    detail: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""
    upload_id: str | None = None

    def subject(self) -> str:
        """The object's address."""
        return self.object.address()

    def content_key(self) -> str:
        """The object's content, its upload and the reason."""
        return f"{self.object.content()}:{self.upload_id or ''}:{self.reason}"
