"""The catalog, the audit trail that can only grow, and the outbox."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime

revision = "index_0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, **{"nullable": False, **options})


def _integer(name: str, kind: Any = sa.Integer, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, **{"nullable": False, **options})


def _time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, UtcDateTime, **{"nullable": False, **options})


def _json(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON, **{"nullable": False, **options})


def _source() -> tuple[sa.Column[Any], ...]:
    return _time("event_time"), _text("event_id")


def _job_key() -> tuple[sa.Column[Any], ...]:
    return (
        _text("series_instance_uid", primary_key=True),
        _integer("revision", primary_key=True),
        _text("job_id", primary_key=True),
    )


def _of_job() -> sa.ForeignKeyConstraint:
    names = ["series_instance_uid", "revision", "job_id"]
    return sa.ForeignKeyConstraint(names, [f"catalog_jobs.{name}" for name in names])


def upgrade() -> None:
    """Make the tables."""
    _what_came_in()
    _what_was_made()
    _audit()
    op.create_table(
        "index_outbox",
        _integer("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("routing_key", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _time("created"),
        sqlite_autoincrement=True,
    )


def _what_came_in() -> None:
    op.create_table("catalog_studies", _text("study_instance_uid", primary_key=True), _time("first_seen"))
    op.create_table(
        "catalog_series",
        _text("series_instance_uid", primary_key=True),
        _text("study_instance_uid", index=True),
        _text("modality"),
        _integer("known_from"),
        _time("first_seen", index=True),
    )
    op.create_table(
        "catalog_instances",
        _text("series_instance_uid", primary_key=True),
        _text("sop_instance_uid", primary_key=True),
        _text("sop_class_uid"),
        _text("transfer_syntax_uid"),
        _integer("instance_number", sa.BigInteger, nullable=True),
        _integer("rows"),
        _integer("columns"),
        _integer("frames", sa.BigInteger),
        _text("object_address"),
        _integer("size", sa.BigInteger),
        *_source(),
    )
    op.create_table(
        "catalog_objects",
        _text("address", primary_key=True),
        _text("etag"),
        _integer("size", sa.BigInteger),
        _text("version_id", nullable=True),
        _text("kind"),
        _text("status", index=True),
        _text("reason"),
        _text("detail"),
        _text("study_instance_uid"),
        _text("series_instance_uid", index=True),
        _text("sop_instance_uid"),
        _text("modality"),
        _integer("members"),
        _json("warnings"),
        _text("upload_id", nullable=True),
        *_source(),
    )


def _what_was_made() -> None:
    op.create_table(
        "catalog_jobs",
        *_job_key(),
        _text("study_instance_uid"),
        _text("status", index=True),
        _time("validated_at", nullable=True),
        _text("modality"),
        _integer("instances"),
        _text("evidence"),
        _json("plan", nullable=True),
        _text("manifest_key"),
        _text("manifest_sha256"),
        _text("trace_id"),
        _time("indexed_at", nullable=True),
        _text("receipt_key"),
        _text("receipt_sha256"),
    )
    op.create_index("ix_catalog_jobs_job_id", "catalog_jobs", ["job_id"])
    op.create_table(
        "catalog_stages",
        *_job_key(),
        _text("stage", primary_key=True),
        _text("outcome"),
        _integer("weight"),
        _text("reason"),
        _text("error_class"),
        _integer("attempts"),
        _integer("replays"),
        _text("record_key"),
        _text("record_sha256"),
        _text("service_version"),
        _time("started", nullable=True),
        _time("finished", nullable=True),
        _json("seconds"),
        _json("measurements"),
        _json("warnings"),
        *_source(),
        _of_job(),
    )
    op.create_table(
        "catalog_artefacts",
        *_job_key(),
        _text("name", primary_key=True),
        _text("stage"),
        _text("media_type"),
        _integer("size", sa.BigInteger),
        _text("sha256"),
        _of_job(),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        _integer("number", NUMBER, primary_key=True, autoincrement=True),
        _text("event_id", unique=True),
        _text("who"),
        _text("what", index=True),
        _text("subject"),
        _text("study_instance_uid"),
        _text("series_instance_uid", index=True),
        _text("sop_instance_uid"),
        _text("object_address"),
        _text("job_id", index=True),
        _text("stage"),
        _text("outcome"),
        _text("reason"),
        _time("occurred"),
        _time("recorded"),
        _text("trace_id"),
        _text("caused_by", nullable=True),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail can only grow'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit trail can only grow'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
        )
