"""The ledger: what ingest knows of objects, instances, series and uploads. Only this service writes these tables."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.lease import lease_columns
from voxelmill_shared.outbox import outbox_table

metadata = MetaData()

objects = Table(
    "ingest_objects",
    metadata,
    Column("bucket", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version_id", Text),
    Column("status", Text, nullable=False, doc="validated, rejected, skipped, unpacked, deidentified or missing"),
    Column("reason", Text, nullable=False, default=""),
    Column("series_instance_uid", Text, nullable=False, default=""),
    Column("sop_instance_uid", Text, nullable=False, default=""),
    Column("upload_id", Text, doc="the upload that it came with last"),
    Column("finding", JSON(none_as_null=True), doc="findings.Finding; none where the object is missing"),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime, nullable=False),
)
"""One row for each object that was ever announced, with its present content."""

instances = Table(
    "ingest_instances",
    metadata,
    Column("series_instance_uid", Text, primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("bucket", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version_id", Text),
    Column("facts", JSON, nullable=False, doc="findings.Instance"),
    Index("ix_ingest_instances_object", "bucket", "key"),
)
"""What each series is made of now."""

series = Table(
    "ingest_series",
    metadata,
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False),
    Column("project", Text, nullable=False, doc="whose it is, by the key of its first instance"),
    Column("changed_at", UtcDateTime, nullable=False, doc="when an object of it was last announced"),
    Column("touches", BigInteger, nullable=False, default=0, doc="counts announcements: guards against lost updates"),
    Column("evidence", Text, doc="evidence of completeness that stands since the last change"),
    *lease_columns(),
    Column("revision", Integer, nullable=False, default=0, doc="0: never complete yet"),
    Column("contents", Text, nullable=False, default="", doc="digest of the instances of the revision"),
    Column("job_id", Text, nullable=False, default=""),
    Column(
        "event", JSON(none_as_null=True), doc="the SeriesValidated of the revision, to be published again as it was"
    ),
)
"""One row for each series; due_at (none: nothing to do) and the lease are the timer of its assembly."""

uploads = Table(
    "ingest_uploads",
    metadata,
    Column("upload_id", Text, primary_key=True),
    Column("expected", Integer, doc="how many objects it has; none: not said yet"),
    Column("settled", Integer, nullable=False, default=0),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

upload_objects = Table(
    "ingest_upload_objects",
    metadata,
    Column("upload_id", Text, primary_key=True),
    Column("bucket", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("series_instance_uid", Text, nullable=False, default="", index=True),
)
"""Which objects of an upload are settled, and which series they touched."""

requests = Table(
    "ingest_requests",
    metadata,
    Column("request_id", Text, primary_key=True, doc="the id of its event"),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("upload_id", Text, nullable=False, index=True, doc="instead of the series"),
    Column("envelope", JSON, nullable=False, doc="the message: whose trace the job continues"),
    Column("served", JSON, nullable=False, doc="the ids of the events that were published for it"),
    Column("first_seen", UtcDateTime, nullable=False),
    *lease_columns(),
)
"""Jobs that somebody asked for and that are not all published yet, because a series is not complete."""

outbox = outbox_table(metadata, "ingest_outbox")

duties = Table(
    "ingest_duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, doc="how far the duty has come, in its own count; none: not begun"),
    *lease_columns(),
)
"""What one replica at a time does: read a stream, list the inbox. Always due; the lease says whose it is."""

deidentification_projects = Table(
    "ingest_deidentification_projects",
    metadata,
    Column("project", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False, doc="opens with the key that the project began with, and no other"),
    Column("first_seen", UtcDateTime, nullable=False),
)

pseudonyms = Table(
    "ingest_pseudonyms",
    metadata,
    Column("project", Text, primary_key=True),
    Column("kind", Text, primary_key=True, doc="uid, patient or object"),
    Column("lookup", Text, primary_key=True, doc="names the original without telling it (an HMAC)"),
    Column("pseudonym", Text, nullable=False, doc="what stands for it in the copies"),
    Column("sealed", LargeBinary, nullable=False, doc="the original, encrypted"),
    Column("first_seen", UtcDateTime, nullable=False),
)
"""What leads from the copies back to their originals. Without the key it tells nothing."""

disclosures = Table(
    "ingest_disclosures",
    metadata,
    # Rows are numbered in the order of their insertion. SQLite numbers only INTEGER keys by itself.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project", Text, nullable=False),
    Column("who", Text, nullable=False, doc="user@host"),
    Column("pseudonyms", JSON, nullable=False, doc="whose originals were told; empty: there were none"),
    Column("occurred", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)
"""Who asked for the way back. Append-only: the migration's triggers refuse UPDATE and DELETE."""
