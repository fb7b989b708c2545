"""What ingest finds in an object: an instance, an archive, or a reason not to take it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, field_validator

from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import ObjectKind, ObjectRef, ObjectRejected, ObjectValidated
from voxelmill_shared.text import shown

_LONGEST_DETAIL = 3000
"""Characters: two keys of 1,024 and what is said of them."""

Vector: TypeAlias = tuple[float, float, float]
Cosines: TypeAlias = tuple[float, float, float, float, float, float]


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True)


class Instance(_Finding):
    """One image: a DICOM instance, or a NIfTI volume under UIDs made from its content.

    `position` and `orientation` are Image Position and Image Orientation (Patient) (PS3.3 C.7.6.2), in mm and LPS.
    `patient_mark` tells the patients of one series apart and says nothing else of them; it stays in the ledger.
    """

    finding: Literal["instance"] = "instance"
    kind: ObjectKind
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""
    modality: str = ""
    transfer_syntax_uid: str = ""
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 1
    position: Vector | None = None
    orientation: Cosines | None = None
    frame_of_reference_uid: str = ""
    patient_mark: str = ""
    warnings: tuple[str, ...] = ()

    def event(self, reference: ObjectRef, upload_id: str | None) -> ObjectValidated:
        """Say that the object is taken."""
        facts = self.model_dump(
            exclude={"finding", "position", "orientation", "frame_of_reference_uid", "patient_mark"}
        )
        return ObjectValidated(object=reference, upload_id=upload_id, **facts)


class Refusal(_Finding):
    """Why the object is not taken, with what is known of its identity.

    `detail` is made one line: it may name another object, and keys hold whatever they like.
    """

    finding: Literal["refusal"] = "refusal"
    reason: Reason
    detail: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""

    @field_validator("detail")
    @classmethod
    def _one_line(cls, value: str) -> str:
        return shown(value, _LONGEST_DETAIL)

    def event(self, reference: ObjectRef, upload_id: str | None) -> ObjectRejected:
        """Say that the object is not taken."""
        facts = self.model_dump(exclude={"finding", "reason"})
        return ObjectRejected(
            object=reference,
            severity=self.reason.severity,
            reason=self.reason.value,
            upload_id=upload_id,
            **facts,
        )

    def nameless(self) -> Refusal:
        """Say of it only what holds no value of the header."""
        return Refusal(reason=self.reason, detail=self.reason.explanation)


class Unpacked(_Finding):
    """An archive whose members have been put into the work store."""

    finding: Literal["unpacked"] = "unpacked"
    members: int
    refused: int

    def event(self, reference: ObjectRef, upload_id: str | None) -> ObjectValidated:
        """Say that the archive is taken."""
        warnings = (f"{self.refused} members refused",) if self.refused else ()
        return ObjectValidated(
            object=reference, kind=ObjectKind.ARCHIVE, members=self.members, warnings=warnings, upload_id=upload_id
        )


class Deidentified(_Finding):
    """An original of which a de-identified copy has been put into the work store. The copy has a row of its own."""

    finding: Literal["deidentified"] = "deidentified"


class Withdrawn(_Finding):
    """A de-identified copy that is deleted, because its original has been replaced by an object of another kind."""

    finding: Literal["withdrawn"] = "withdrawn"


class ArchiveFormat(StrEnum):
    """The archives that are unpacked, told by their bytes."""

    ZIP = "zip"
    TAR = "tar"
    TAR_GZIP = "tar.gz"


Finding: TypeAlias = Instance | Refusal | Unpacked | Deidentified | Withdrawn
