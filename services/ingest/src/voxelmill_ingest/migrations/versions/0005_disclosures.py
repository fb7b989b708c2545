"""Who asked the mapping for the way back. The table can only grow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.database import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and refuse to change what stands in it."""
    op.create_table(
        "ingest_disclosures",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("pseudonyms", sa.JSON, nullable=False),
        sa.Column("occurred", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ingest_disclosures_refuse_{verb.lower()} BEFORE {verb} ON ingest_disclosures "
                "BEGIN SELECT RAISE(ABORT, 'the record of disclosures can only grow'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION ingest_disclosures_only_grow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the record of disclosures can only grow'; END $$"
        )
        op.execute(
            "CREATE TRIGGER ingest_disclosures_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON ingest_disclosures "
            "FOR EACH STATEMENT EXECUTE FUNCTION ingest_disclosures_only_grow()"
        )
