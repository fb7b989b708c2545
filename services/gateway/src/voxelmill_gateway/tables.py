"""The gateway's own tables. The catalog is index's: the gateway reads it, and changes it by events alone."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, Table, Text

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.outbox import outbox_table

METADATA = MetaData()

UPLOADS = Table(
    "gateway_uploads",
    METADATA,
    Column("upload_id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", Text, nullable=False, doc="rest, stow or prototype"),
    Column("state", Text, nullable=False, doc="open, complete or aborted"),
    Column("objects", Integer, doc="how many objects it has; none: not said yet"),
    Column("created", UtcDateTime, nullable=False),
    Column("changed", UtcDateTime, nullable=False),
    Index("ix_gateway_uploads_state_changed", "state", "changed"),
)

UPLOAD_FILES = Table(
    "gateway_upload_files",
    METADATA,
    Column("upload_id", Text, ForeignKey("gateway_uploads.upload_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    # What the client calls the file is not kept: it may be a name.
    Column("key", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("received", BigInteger, nullable=False, default=0),
    Column("multipart_id", Text, doc="the store's name of an upload in parts"),
    Column("etag", Text),
    Column("done", Boolean, nullable=False, default=False),
)

REQUESTS = Table(
    "gateway_requests",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("modality", Text, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("created", UtcDateTime, nullable=False),
)
"""Jobs that were asked for: what there is to tell of one until the catalog knows it."""

API_KEYS = Table(
    "gateway_api_keys",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column(
        "secret_sha256", Text, nullable=False, doc="of 256 random bits, which nobody guesses: no salt, no stretching"
    ),
    Column("role", Integer, nullable=False),
    Column("projects", JSON(none_as_null=True), doc="a list of names; none: all projects"),
    Column("created", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires", UtcDateTime),
    Column("revoked", UtcDateTime),
    Column("last_used", UtcDateTime),
)

OUTBOX = outbox_table(METADATA, "gateway_outbox")

MIGRATIONS = "voxelmill_gateway.migrations"
VERSION_TABLE = "alembic_version_gateway"
