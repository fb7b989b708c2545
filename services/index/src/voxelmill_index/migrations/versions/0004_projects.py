"""Projects, headers, the DICOM objects among the results, and progress. What was indexed before gets its project."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.projects import DEFAULT_PROJECT, project_of

revision = "index_0004"
down_revision = "index_0003"
branch_labels = None
depends_on = None

BATCH = 5000
"""Rows in memory at a time."""

OBJECTS = sa.table("catalog_objects", *(sa.column(name, sa.Text) for name in ("address", "project")))
INSTANCES = sa.table("catalog_instances", *(sa.column(n, sa.Text) for n in ("series_instance_uid", "object_address")))
SERIES = sa.table("catalog_series", *(sa.column(name, sa.Text) for name in ("series_instance_uid", "project")))


def _text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, **{"nullable": False, **options})


def _integer(name: str, kind: Any = sa.Integer, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, **{"nullable": False, **options})


def _source() -> tuple[sa.Column[Any], ...]:
    return sa.Column("event_time", UtcDateTime, nullable=False), _text("event_id")


def upgrade() -> None:
    """Add the columns and tables. Headers of series that were indexed before are read with their next revision."""
    _projects(op.get_bind())
    _headers()
    _derived()
    _progress()


def _projects(connection: sa.Connection) -> None:
    op.add_column("catalog_objects", _text("project", server_default=DEFAULT_PROJECT))
    op.add_column("catalog_series", _text("project", server_default=""))
    # No key began with `projects/` for a reason of ours, but some may: then they are that project's from now on.
    addresses = sa.select(OBJECTS.c.address).where(OBJECTS.c.address.like("%/projects/%")).order_by(OBJECTS.c.address)
    change = OBJECTS.update().where(OBJECTS.c.address == sa.bindparam("at"))
    last = ""
    while found := connection.execute(addresses.where(OBJECTS.c.address > last).limit(BATCH)).scalars().all():
        rows = [{"at": address, "project": project_of(address.partition("/")[2])} for address in found]
        connection.execute(change, rows)
        last = found[-1]
    _name_series(connection)
    if connection.dialect.name != "sqlite":  # which cannot, and never needs the default
        op.alter_column("catalog_objects", "project", server_default=None)
        op.alter_column("catalog_series", "project", server_default=None)
    op.create_index("ix_catalog_series_project_first_seen", "catalog_series", ["project", "first_seen"])
    op.create_index("ix_catalog_objects_upload_id", "catalog_objects", ["upload_id"])


def _name_series(connection: sa.Connection) -> None:
    """Give each series the project of one of its instances: of the first by its address."""
    one = (
        sa.select(INSTANCES.c.series_instance_uid, sa.func.min(INSTANCES.c.object_address).label("address"))
        .group_by(INSTANCES.c.series_instance_uid)
        .order_by(INSTANCES.c.series_instance_uid)
    )
    change = SERIES.update().where(SERIES.c.series_instance_uid == sa.bindparam("uid"))
    last = ""
    while rows := connection.execute(one.where(INSTANCES.c.series_instance_uid > last).limit(BATCH)).all():
        named = [{"uid": row.series_instance_uid, "project": project_of(row.address.partition("/")[2])} for row in rows]
        connection.execute(change, named)
        last = rows[-1].series_instance_uid


def _headers() -> None:
    indexed = {"study_instance_uid", "patient_id", "study_date", "accession_number"}
    names = (
        *("study_instance_uid", "project", "derived_from_job", "patient_id", "patient_name", "patient_name_folded"),
        *("patient_birth_date", "patient_sex", "study_date", "study_time", "accession_number"),
        *("referring_physician_name", "study_id", "study_description", "modality"),
    )
    op.create_table(
        "catalog_headers",
        _text("series_instance_uid", primary_key=True),
        *(_text(name, index=name in indexed) for name in names),
        _integer("series_number", sa.BigInteger, nullable=True),
        _text("series_description"),
        _text("body_part_examined"),
        sa.Column("study_json", sa.JSON, nullable=False),
        sa.Column("series_json", sa.JSON, nullable=False),
        *_source(),
    )
    op.create_index("ix_catalog_headers_project_study_date", "catalog_headers", ["project", "study_date"])
    op.create_index(
        "ix_catalog_headers_patient_name_folded",
        "catalog_headers",
        ["patient_name_folded"],
        postgresql_ops={"patient_name_folded": "text_pattern_ops"},
    )


def _derived() -> None:
    op.create_table(
        "catalog_derived",
        _text("series_instance_uid", index=True),
        _text("sop_instance_uid", primary_key=True),
        _text("sop_class_uid"),
        _text("transfer_syntax_uid"),
        _integer("instance_number", sa.BigInteger, nullable=True),
        _integer("rows"),
        _integer("columns"),
        _integer("frames", sa.BigInteger),
        _text("result_key"),
        _integer("size", sa.BigInteger),
        _text("of_series_instance_uid", index=True),
        _integer("revision"),
        _text("job_id"),
        *_source(),
    )


def _progress() -> None:
    op.create_table(
        "catalog_progress",
        _text("series_instance_uid", primary_key=True),
        _integer("revision", primary_key=True),
        _text("job_id", primary_key=True),
        _text("stage", primary_key=True),
        _integer("attempt"),
        _text("step"),
        _integer("done", sa.BigInteger),
        _integer("total", sa.BigInteger),
        _integer("percent", nullable=True),
        sa.Column("recorded", UtcDateTime, nullable=False, index=True),
        *_source(),
    )
