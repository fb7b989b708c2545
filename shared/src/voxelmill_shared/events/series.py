"""Events about one revision of a series, one for each stage."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from voxelmill_shared.events.envelope import Event
from voxelmill_shared.plan import Plan


class Stage(StrEnum):
    """The stages of a series, in the order in which they usually settle."""

    INGEST = "ingest"
    THUMBNAIL = "thumbnail"
    SEGMENT = "segment"
    MESH = "mesh"
    INDEX = "index"


class DocumentRef(BaseModel):
    """A JSON document in the result store: too large for an event, so the event names it with its digest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class SeriesEvent(Event):
    """What every event about a series revision says."""

    study_instance_uid: str
    series_instance_uid: str
    revision: int = Field(ge=1)
    job_id: str

    def subject(self) -> str:
        """The Series Instance UID."""
        return self.series_instance_uid

    def content_key(self) -> str:
        """Revision and job."""
        return f"r{self.revision}:{self.job_id}"

    def job(self) -> str | None:
        """The job."""
        return self.job_id


class Evidence(StrEnum):
    """Why ingest holds the series to be complete."""

    UPLOAD = "upload"
    ARCHIVE = "archive"
    GEOMETRY = "geometry"
    QUIET = "quiet"


class SeriesValidated(SeriesEvent):
    """A series is complete. `manifest` is a `SeriesManifest`: its instances, sorted."""

    type: ClassVar[str] = "series.validated.v1"

    modality: str
    instances: int = Field(ge=1)
    manifest: DocumentRef
    plan: Plan
    evidence: Evidence


class StageDone(SeriesEvent):
    """A stage has written its results. `record` is a `StageRecord`: its artefacts, measurements and times."""

    record: DocumentRef
    artefacts: int = Field(ge=0)
    plan: Plan


class SeriesThumbnailed(StageDone):
    """Previews stand."""

    type: ClassVar[str] = "series.thumbnailed.v1"


class QualityFlag(BaseModel):
    """What is unlikely about a segmentation: a kind, the segments that it is about, and a line for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str
    segments: tuple[str, ...] = ()
    line: str = ""


class SeriesSegmented(StageDone):
    """The label map, the DICOM SEG and the statistics stand. `quality`: what somebody should look at."""

    type: ClassVar[str] = "series.segmented.v1"

    quality: tuple[QualityFlag, ...] = ()


class SeriesMeshed(StageDone):
    """The surfaces stand."""

    type: ClassVar[str] = "series.meshed.v1"


class StageSkipped(SeriesEvent):
    """A stage does not apply to this series (an MR series and a model for CT, say): nothing failed."""

    type: ClassVar[str] = "stage.skipped.v1"

    stage: Stage
    reason: str

    def content_key(self) -> str:
        """Revision, job and stage."""
        return f"r{self.revision}:{self.job_id}:{self.stage}"


class StageFailed(Event):
    """A message went into a dead-letter queue. The runtime says so, with all that it knows of it.

    The UIDs and the job are empty when the message was about an object, or could not be decoded.
    """

    type: ClassVar[str] = "stage.failed.v1"

    stage: Stage
    queue: str
    error_class: str
    reason: str
    attempts: int
    message_type: str = ""
    message_id: str = ""
    object_address: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    revision: int = 0
    job_id: str = ""
    replays: int = 0

    def subject(self) -> str:
        """The series, else the object, else the queue."""
        return self.series_instance_uid or self.object_address or self.queue

    def content_key(self) -> str:
        """Which message failed, after which replay."""
        return f"{self.queue}:{self.message_id}:{self.replays}"

    def job(self) -> str | None:
        """The job, if the message belonged to one."""
        return self.job_id or None


class Status(StrEnum):
    """How a series revision ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"


class SeriesIndexed(SeriesEvent):
    """Every stage of this revision has settled, and the receipt stands. `partial`: at least one stage failed."""

    type: ClassVar[str] = "series.indexed.v1"

    status: Status
    receipt: DocumentRef
    failed_stages: tuple[Stage, ...] = ()
    skipped_stages: tuple[Stage, ...] = ()

    def content_key(self) -> str:
        """Revision, job and receipt: a receipt that is another document than before, after a replay say, is news.

        A receipt is made from what the stages have recorded alone, so the same work gives the same receipt however
        often, and whenever, it is written.
        """
        return f"r{self.revision}:{self.job_id}:{self.receipt.sha256}"
