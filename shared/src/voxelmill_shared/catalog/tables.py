"""The catalog's tables. Index alone writes them; the gateway and the command read them through `queries`.

Every row that can be written by more than one event carries the time and the id of the event that it comes from
(`event_time`, `event_id`), so that events give the same rows in whatever order they arrive. Texts have no bound here:
what a hostile file says must not stop the row that tells of its rejection.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, ForeignKeyConstraint, Index, Integer, MetaData, Table, Text

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.privacy import object_digest
from voxelmill_shared.projects import project_of

METADATA = MetaData()

_JOB_KEY = ("series_instance_uid", "revision", "job_id")


def _source() -> tuple[Column[Any], Column[Any]]:
    return (
        Column("event_time", UtcDateTime, nullable=False),
        Column("event_id", Text, nullable=False),
    )


def _digest(context: Any) -> str:
    return object_digest(context.get_current_parameters()["address"])


def _project(context: Any) -> str:
    return project_of(context.get_current_parameters()["address"].partition("/")[2])


STUDIES = Table(
    "catalog_studies",
    METADATA,
    Column("study_instance_uid", Text, primary_key=True),
    Column("first_seen", UtcDateTime, nullable=False),
)

SERIES = Table(
    "catalog_series",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, index=True),
    Column("modality", Text, nullable=False),
    # The revision that study and modality were read from; 0 if only from single objects.
    Column("known_from", Integer, nullable=False),
    # Whose it is (`projects`); empty while no object of it is known. Every series of one project, newest first.
    Column("project", Text, nullable=False),
    Column("first_seen", UtcDateTime, nullable=False, index=True),
    Index("ix_catalog_series_project_first_seen", "project", "first_seen"),
)

INSTANCES = Table(
    "catalog_instances",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("instance_number", BigInteger),
    Column("rows", Integer, nullable=False),
    Column("columns", Integer, nullable=False),
    Column("frames", BigInteger, nullable=False),
    Column("object_address", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    *_source(),
)

OBJECTS = Table(
    "catalog_objects",
    METADATA,
    Column("address", Text, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version_id", Text),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("members", Integer, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("upload_id", Text, index=True),
    Column("project", Text, nullable=False, default=_project),
    # By which log lines and audit records name the object (`privacy`).
    Column("digest", Text, nullable=False, default=_digest, index=True),
    *_source(),
    Index("ix_catalog_objects_status_address", "status", "address"),
)

JOBS = Table(
    "catalog_jobs",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False),
    Column("status", Text, nullable=False, index=True),
    # Null until series.validated has come.
    Column("validated_at", UtcDateTime),
    Column("modality", Text, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("plan", JSON),
    Column("manifest_key", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("trace_id", Text, nullable=False),
    # Null until every stage has settled for the first time.
    Column("indexed_at", UtcDateTime),
    Column("receipt_key", Text, nullable=False),
    Column("receipt_sha256", Text, nullable=False),
    Index("ix_catalog_jobs_job_id", "job_id"),
)

STAGES = Table(
    "catalog_stages",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    # What outweighs what, whatever comes first: 0 implied by another stage, 1 failed, 2 skipped, 3 done.
    Column("weight", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error_class", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("replays", Integer, nullable=False),
    Column("record_key", Text, nullable=False),
    Column("record_sha256", Text, nullable=False),
    Column("service_version", Text, nullable=False),
    Column("started", UtcDateTime),
    Column("finished", UtcDateTime),
    Column("seconds", JSON, nullable=False),
    Column("measurements", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    *_source(),
    ForeignKeyConstraint(_JOB_KEY, [JOBS.c[name] for name in _JOB_KEY]),
)

ARTEFACTS = Table(
    "catalog_artefacts",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    ForeignKeyConstraint(_JOB_KEY, [JOBS.c[name] for name in _JOB_KEY]),
)

HEADERS = Table(
    "catalog_headers",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, index=True),
    Column("project", Text, nullable=False),
    # Of a series that Voxelmill has made itself, a DICOM segmentation: the job. Else empty.
    Column("derived_from_job", Text, nullable=False),
    Column("patient_id", Text, nullable=False, index=True),
    Column("patient_name", Text, nullable=False),
    # As it is compared (`names.fold_name`).
    Column("patient_name_folded", Text, nullable=False),
    Column("patient_birth_date", Text, nullable=False),
    Column("patient_sex", Text, nullable=False),
    # Dates and times as DICOM writes them, YYYYMMDD and HHMMSS.FFFFFF: they sort as text.
    Column("study_date", Text, nullable=False, index=True),
    Column("study_time", Text, nullable=False),
    Column("accession_number", Text, nullable=False, index=True),
    Column("referring_physician_name", Text, nullable=False),
    Column("study_id", Text, nullable=False),
    Column("study_description", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("series_number", BigInteger),
    Column("series_description", Text, nullable=False),
    Column("body_part_examined", Text, nullable=False),
    # DICOM JSON (PS3.18 F.2): the attributes that describe the patient and the study, and those of the series.
    Column("study_json", JSON, nullable=False),
    Column("series_json", JSON, nullable=False),
    *_source(),
    Index("ix_catalog_headers_project_study_date", "project", "study_date"),
    # For names as a whole and for their beginnings, whatever the database's collation.
    Index(
        "ix_catalog_headers_patient_name_folded",
        "patient_name_folded",
        postgresql_ops={"patient_name_folded": "text_pattern_ops"},
    ),
)
"""What the header of a series' first instance says. Not every series has a row: of some no header can be read."""

DERIVED = Table(
    "catalog_derived",
    METADATA,
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("instance_number", BigInteger),
    Column("rows", Integer, nullable=False),
    Column("columns", Integer, nullable=False),
    Column("frames", BigInteger, nullable=False),
    Column("result_key", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("of_series_instance_uid", Text, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("job_id", Text, nullable=False),
    *_source(),
)
"""DICOM objects among the results. Their series stand in `HEADERS` beside those that came in."""

PROGRESS = Table(
    "catalog_progress",
    METADATA,
    Column("series_instance_uid", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("percent", Integer),
    # When index wrote it, by its own clock: who polls asks for what is newer than its last look.
    Column("recorded", UtcDateTime, nullable=False, index=True),
    *_source(),
)
"""How far each stage of each job was when it last said so. It may come before the job's own row, so refers to none."""

AUDIT = Table(
    "audit",
    METADATA,
    # Without a gap, in the order of the chain. SQLite numbers only INTEGER keys by itself.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False, index=True),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("sop_instance_uid", Text, nullable=False, index=True),
    Column("object_address", Text, nullable=False),
    Column("job_id", Text, nullable=False, index=True),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("occurred", UtcDateTime, nullable=False),
    Column("recorded", UtcDateTime, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("caused_by", Text),
    Column("hash", Text, nullable=False, doc="see `chain`"),
    Index("ix_audit_what_number", "what", "number"),
    sqlite_autoincrement=True,
)
"""Append-only: the migration's triggers refuse UPDATE and DELETE, and the hashes show who has got round them.

Terms: `who` is the audit source and active participant, `what` the event type, `outcome` the event outcome indicator
of DICOM PS3.15 A.5 (FHIR AuditEvent: `agent`, `type`, `outcome`).
"""

AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    # There is one row. Who appends to the trail locks it.
    Column("only", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)
"""The last record of the trail, so that a tail that was cut off is missed. The triggers let it only grow."""
