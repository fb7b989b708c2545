"""The audit trail becomes a chain and names objects by digests; the catalog finds an object by its digest."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from voxelmill_shared.catalog.chain import FIELDS, GENESIS, record_hash
from voxelmill_shared.database import UtcDateTime
from voxelmill_shared.privacy import object_digest, without_keys

revision = "index_0003"
down_revision = "index_0002"
branch_labels = None
depends_on = None

BATCH = 5000
"""Rows in memory at a time, about 1 KB each."""

_MOMENTS = ("occurred", "recorded")
AUDIT = sa.table(
    "audit",
    sa.column("number", sa.BigInteger),
    sa.column("hash", sa.Text),
    *(sa.column(name, UtcDateTime if name in _MOMENTS else sa.Text) for name in FIELDS),
)
OBJECTS = sa.table("catalog_objects", sa.column("address", sa.Text), sa.column("digest", sa.Text))


def upgrade() -> None:
    """Add the hashes, to the records that stand too."""
    connection = op.get_bind()
    on_sqlite = connection.dialect.name == "sqlite"
    _let_change(on_sqlite=on_sqlite)
    op.add_column("audit", sa.Column("hash", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "audit_head",
        sa.Column("only", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    number, last = _chain(connection)
    head = sa.table("audit_head", sa.column("only"), sa.column("number"), sa.column("hash"))
    op.execute(head.insert().values(only=1, number=number, hash=last))
    _protect(on_sqlite=on_sqlite)
    op.add_column("catalog_objects", sa.Column("digest", sa.Text, nullable=False, server_default=""))
    _name_objects(connection)
    op.create_index("ix_catalog_objects_digest", "catalog_objects", ["digest"])
    if not on_sqlite:  # which cannot, and never needs the default
        op.alter_column("audit", "hash", server_default=None)
        op.alter_column("catalog_objects", "digest", server_default=None)


def _chain(connection: sa.Connection) -> tuple[int, str]:
    """Put digests for the keys of the records that stand, chain them, and return the number and hash of the last."""
    number, last = 0, GENESIS
    change = AUDIT.update().where(AUDIT.c.number == sa.bindparam("at"))
    while rows := connection.execute(
        sa.select(AUDIT).where(AUDIT.c.number > number).order_by(AUDIT.c.number).limit(BATCH)
    ).all():
        changed: list[dict[str, Any]] = []
        for row in rows:
            record = _nameless(row._asdict())
            number, last = row.number, record_hash(last, row.number, record)
            changed.append(
                {
                    "at": number,
                    "hash": last,
                    **{name: record[name] for name in ("subject", "object_address", "reason")},
                }
            )
        connection.execute(change, changed)
    return number, last


def _nameless(record: dict[str, Any]) -> dict[str, Any]:
    address = record["object_address"]
    if not address:
        return record
    if record["subject"] == address:
        record["subject"] = object_digest(address)
    return record | {"object_address": object_digest(address), "reason": without_keys(record["reason"], [address])}


def _name_objects(connection: sa.Connection) -> None:
    change = OBJECTS.update().where(OBJECTS.c.address == sa.bindparam("at"))
    last = ""
    while (
        found := connection.execute(
            sa.select(OBJECTS.c.address).where(OBJECTS.c.address > last).order_by(OBJECTS.c.address).limit(BATCH)
        )
        .scalars()
        .all()
    ):
        connection.execute(change, [{"at": address, "digest": object_digest(address)} for address in found])
        last = found[-1]


def _let_change(*, on_sqlite: bool) -> None:
    if on_sqlite:
        for verb in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_refuses_{verb}")
    else:
        op.execute("DROP TRIGGER audit_only_grows ON audit")


def _protect(*, on_sqlite: bool) -> None:
    """Refuse changes as before, and any head but the next one."""
    if on_sqlite:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail can only grow'); END"
            )
        for verb, when in (("UPDATE", "WHEN NEW.number <> OLD.number + 1 "), ("DELETE", "")):
            op.execute(
                f"CREATE TRIGGER audit_head_{verb.lower()} BEFORE {verb} ON audit_head {when}"
                "BEGIN SELECT RAISE(ABORT, 'the audit trail can only grow'); END"
            )
        return
    op.execute(
        "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
    )
    op.execute(
        "CREATE TRIGGER audit_head_next BEFORE UPDATE ON audit_head FOR EACH ROW "
        "WHEN (NEW.number <> OLD.number + 1) EXECUTE FUNCTION audit_only_grows()"
    )
    op.execute(
        "CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON audit_head "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
    )
