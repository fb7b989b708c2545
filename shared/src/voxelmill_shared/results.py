"""Where results lie and what their documents say: keys, the series manifest, the stages' records, the receipt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from voxelmill_shared.events import ObjectKind, ObjectRef, Stage, Status
from voxelmill_shared.plan import Plan

if TYPE_CHECKING:
    from voxelmill_shared.events import SeriesEvent


@dataclass(frozen=True, slots=True)
class ResultKeys:
    """The keys of one job's results in the result store (DESIGN: 4. Results)."""

    series_instance_uid: str
    revision: int
    job_id: str

    @classmethod
    def of(cls, event: SeriesEvent) -> Self:
        """Return the keys of the job that an event is about."""
        return cls(event.series_instance_uid, event.revision, event.job_id)

    @property
    def revision_prefix(self) -> str:
        """`{series}/r{revision}`."""
        return f"{self.series_instance_uid}/r{self.revision}"

    @property
    def prefix(self) -> str:
        """`{series}/r{revision}/{job}`."""
        return f"{self.revision_prefix}/{self.job_id}"

    @property
    def manifest(self) -> str:
        """The `SeriesManifest`: what the series is made of."""
        return f"{self.prefix}/manifest.json"

    @property
    def receipt(self) -> str:
        """The `Receipt` of the whole job, written by index."""
        return f"{self.prefix}/receipt.json"

    @property
    def label_map(self) -> str:
        """The label map, NIfTI-1, gzip."""
        return f"{self.prefix}/segmentation/labelmap.nii.gz"

    def stage_record(self, stage: Stage) -> str:
        """The `StageRecord` of a stage: written last, so that where it stands the stage's work is done."""
        return f"{self.prefix}/stages/{stage}.json"

    def artefact(self, name: str) -> str:
        """The key of an artefact by its name within the job, `meshes/lung_left.stl`."""
        return f"{self.prefix}/{name}"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> bytes:
        """Write the document: indented UTF-8 JSON with a final newline."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class ManifestInstance(_Document):
    """One instance of a series, in the order of the manifest."""

    object: ObjectRef
    sop_instance_uid: str
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    instance_number: int | None = None
    frames: int = 1


class SeriesManifest(_Document):
    """The instances of a series revision.

    Sorted by position along the slice normal where they have one, else by instance number. `warnings` is what ingest
    found odd about them, `code: detail` each.
    """

    study_instance_uid: str
    series_instance_uid: str
    revision: int
    job_id: str
    modality: str
    kind: ObjectKind
    plan: Plan
    instances: tuple[ManifestInstance, ...] = Field(min_length=1)
    warnings: tuple[str, ...] = ()


class Artefact(_Document):
    """One result file. `name` is its key within the job."""

    name: str
    media_type: str
    size: int
    sha256: str


class StageRecord(_Document):
    """What a stage did. `seconds` are the wall times of its steps; `domain` is all of the work that is not plumbing."""

    stage: Stage
    service_version: str
    started: datetime
    finished: datetime
    seconds: dict[str, float]
    artefacts: tuple[Artefact, ...]
    measurements: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    trace_id: str = ""


class StageSummary(_Document):
    """How a stage ended, as the receipt tells it."""

    outcome: str = Field(description="done, skipped or failed")
    reason: str = ""
    service_version: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    seconds: dict[str, float] = {}
    measurements: dict[str, Any] = {}


class Receipt(_Document):
    """What a job was made from, by what, and what came out, with digests: enough to verify and to repeat it."""

    job_id: str
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    modality: str
    status: Status
    plan: Plan
    inputs: tuple[ManifestInstance, ...]
    stages: dict[Stage, StageSummary]
    artefacts: tuple[Artefact, ...]
    warnings: tuple[str, ...]
    versions: dict[str, str]
    trace_id: str
