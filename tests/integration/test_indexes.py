"""Which indexes PostgreSQL uses: every query of ingest, catalog, leases and outbox finds its rows by one, none is idle."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import JSON, Column, DateTime, Integer, LargeBinary, Table, Uuid, event, text

from voxelmill_index import described, recording, settling
from voxelmill_index.describing import Description
from voxelmill_index.service import migrate as migrate_index
from voxelmill_index.tables import OUTBOX as INDEX_OUTBOX
from voxelmill_ingest import rows
from voxelmill_ingest.assembler import Assembler
from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.ledger import Ledger
from voxelmill_ingest.reconciler import Reconciler
from voxelmill_ingest.requested import make_due
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import instances, objects, outbox, requests, series, upload_objects, uploads
from voxelmill_shared import catalog
from voxelmill_shared.catalog import ObjectStatus, Scope, search
from voxelmill_shared.catalog.scope import EVERYTHING
from voxelmill_shared.catalog.search import SeriesFilter
from voxelmill_shared.catalog.tables import (
    ARTEFACTS,
    AUDIT,
    DERIVED,
    HEADERS,
    INSTANCES,
    JOBS,
    OBJECTS,
    PROGRESS,
    SERIES,
    STAGES,
    STUDIES,
)
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.lease import claim_due
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.outbox import OutboxRelay
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ResultKeys
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.embedded import EmbeddedTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

pytestmark = pytest.mark.postgresql

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 20_000
"""Enough that reading a whole table is the dearer way."""
TABLES = {
    # Columns that matter for what is asked; `n` is the row's number. All others are made up.
    objects: {"bucket": "'inbox'", "key": "'key-' || n", "status": "'validated'"},
    instances: {"series_instance_uid": "'s' || n / 200", "bucket": "'inbox'", "key": "'key-' || n"},
    series: {
        "series_instance_uid": "'s' || n",
        # Most series are complete: nothing is due.
        "due_at": "CASE WHEN n % 100 = 0 THEN timestamptz '2026-02-01' + n * interval '1 second' END",
        "leased_by": "CASE WHEN n % 300 = 0 THEN 'another' END",
        "leased_until": "CASE WHEN n % 300 = 0 THEN timestamptz '2027-01-01' END",
    },
    uploads: {"upload_id": "'u' || n", "changed_at": "timestamptz '2026-02-28'"},
    upload_objects: {
        "upload_id": "'u' || n / 100",
        "bucket": "'inbox'",
        "key": "'key-' || n",
        "series_instance_uid": "'s' || n / 200",
    },
    outbox: {"routing_key": "'series.validated.v1'"},
    INDEX_OUTBOX: {"routing_key": "'series.indexed.v1'"},
    STUDIES: {},
    SERIES: {
        "series_instance_uid": "'s' || n",
        "study_instance_uid": "'st' || n / 3",
        # A small project in a large installation: its newest series stand far apart.
        "project": "CASE WHEN n % 1000 = 7 THEN 'p7' ELSE 'p0' END",
        "first_seen": "timestamptz '2026-01-01' + n * interval '1 minute'",
    },
    HEADERS: {
        "series_instance_uid": "'s' || n",
        "study_instance_uid": "'st' || n / 3",
        "project": "'p' || n % 50",
        "derived_from_job": "CASE WHEN n % 100 = 0 THEN 'j' || n ELSE '' END",
        "patient_id": "'P-' || n / 5",
        "patient_name_folded": "'name^' || n / 5",
        "study_date": "to_char(date '2020-01-01' + n / 10, 'YYYYMMDD')",
        "accession_number": "'A-' || n / 3",
    },
    DERIVED: {
        "series_instance_uid": "'s' || n",
        "of_series_instance_uid": "'s' || n",
        "revision": "1",
        "job_id": "'j' || n",
    },
    PROGRESS: {
        "series_instance_uid": "'s' || n",
        "revision": "1",
        "job_id": "'j' || n",
        "stage": "'mesh'",
        "recorded": "timestamptz '2026-01-01' + n * interval '1 minute'",
    },
    requests: {
        "series_instance_uid": "'s' || n",
        "upload_id": "'u' || n",
        "due_at": "timestamptz '2027-01-01' + n * interval '1 second'",
        "leased_by": "NULL",
    },
    INSTANCES: {"series_instance_uid": "'s' || n / 200"},
    OBJECTS: {
        "address": "'inbox/key-' || n",
        "upload_id": "'u' || n / 100",
        "status": "CASE WHEN n % 500 = 0 THEN 'rejected' ELSE 'validated' END",
    },
    JOBS: {"series_instance_uid": "'s' || n", "revision": "1", "job_id": "'j' || n", "status": "'complete'"},
    STAGES: {
        "series_instance_uid": "'s' || n",
        "revision": "1",
        "job_id": "'j' || n",
        "stage": "'mesh'",
        "outcome": "'done'",
    },
    ARTEFACTS: {"series_instance_uid": "'s' || n", "revision": "1", "job_id": "'j' || n", "stage": "'mesh'"},
    AUDIT: {
        "what": "CASE WHEN n % 200 = 0 THEN 'series.validated.v1' ELSE 'object.validated.v1' END",
        "study_instance_uid": "'st' || n / 600",
        "series_instance_uid": "'s' || n / 200",
        "sop_instance_uid": "'i' || n",
        "job_id": "CASE WHEN n % 200 = 0 THEN 'j' || n ELSE '' END",
    },
}
MADE_UP = {
    DateTime: "timestamptz '2026-01-01'",
    Integer: "n",
    LargeBinary: "'\\x00'::bytea",
    Uuid: "md5(n::text)::uuid",
    JSON: "'{}'::json",
}
READ_ALL_FIRST = {"Sort", "Hash", "Hash Join", "Merge Join", "Aggregate"}
"""Steps that give nothing before they have read all that is below them."""
IDLE = {"ix_ingest_duties_due_at", "ix_catalog_jobs_status"}
"""Of a table with a handful of rows; for counting by status, which reads all of the index instead of all of the table."""


def made_up(column: Column[Any]) -> str:
    """Give an expression for a value of a column."""
    kind = getattr(column.type, "impl_instance", column.type)  # what a type of our own is made of
    for known, expression in MADE_UP.items():
        if isinstance(kind, known):
            return expression
    return "md5(n::text) || md5(n::text)" if column.name.endswith("sha256") else "md5(n::text)"


def filling(table: Table, known: dict[str, str]) -> str:
    """Give the statement that fills a table."""
    values = {column.name: known.get(column.name, made_up(column)) for column in table.columns}
    names = ", ".join(f'"{name}"' for name in values)
    made = ", ".join(values.values())
    return f"INSERT INTO {table.name} ({names}) SELECT {made} FROM generate_series(1, {ROWS}) AS n"  # noqa: S608 - all names are ours


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    """Give the tables of ingest and index, full of rows."""
    await upgrade(database, package=MIGRATIONS, version_table=VERSION_TABLE)
    await migrate_index(database)
    opened = open_database(database)
    try:
        async with transaction(opened) as connection:
            for table, known in TABLES.items():
                await connection.execute(text(filling(table, known)))
            await connection.execute(text("ANALYZE"))
        yield opened
    finally:
        await opened.dispose()


@contextmanager
def asked(engine: AsyncEngine) -> Iterator[dict[str, Any]]:
    """Collect the statements that are run inside the block, each with its parameters."""
    statements: dict[str, Any] = {}

    def note(_: object, __: object, statement: str, parameters: Any, ___: object, many: bool) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")) and not many:
            statements.setdefault(statement, parameters)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine.sync_engine, "before_cursor_execute", note)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through all steps of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def plans(engine: AsyncEngine, statements: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ask PostgreSQL how it would run each statement."""
    found = {}
    async with transaction(engine) as connection:
        for statement, parameters in statements.items():
            answer = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            told = answer.scalar_one()
            found[statement] = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
    return found


async def ask_the_ledger(engine: AsyncEngine, tmp_path: Path) -> None:
    """Run every query of ingest."""
    patience = Patience(upload=timedelta(hours=1), geometry=timedelta(seconds=1), quiet=timedelta(seconds=1))
    ledger = Ledger(engine, "test", patience, lambda: NOW)
    store = LocalStore(tmp_path / "inbox", "inbox")
    for number in range(3):
        await store.write(f"key-{number}", b"x")
    transport = EmbeddedTransport(tmp_path / "broker.db")
    relay = OutboxRelay(engine, outbox, transport)
    places = [("inbox", f"key-{number}") for number in range(5, 9)]
    async with transaction(engine) as connection:
        await rows.lock_objects(connection, places)
        await rows.lock_uploads(connection, {"u1", "u2"}, NOW)
        await rows.counted_objects(connection, {"u1": places, "u2": places})
        await rows.series_of_uploads(connection, {"u1"})
        await rows.series_of_objects(connection, places)
        await rows.lock_series(connection, {"s1": None, "s2": None}, NOW)
        await rows.read_instances(connection, [("s1", "i1"), ("s2", "i2")], places)
        await make_due(connection, "s7", NOW)
        await claim_due(connection, requests, now=NOW, lease=timedelta(seconds=60), owner="test", limit=8)
        await claim_due(connection, series, now=NOW, lease=timedelta(seconds=60), owner="test", limit=8)
        await connection.execute(relay._next(0).with_for_update(skip_locked=True))
        await relay._remove(connection, (await connection.execute(relay._next(0))).all())
    assembler = Assembler(ledger, store, relay, Plan(), owner="test")
    await assembler._until_next()
    await assembler._load("s19999", NOW)
    await Reconciler(engine, store, transport, "test", timedelta(hours=1), grace=timedelta(0)).once(announce=False)
    await transport.close()


async def ask_the_catalog(connection: AsyncConnection) -> None:
    """Run every query of the catalog's read model, and of index, but for the counts of whole tables."""
    keys = ResultKeys("s7", 1, "j7")
    await catalog.list_series(connection, limit=20)
    await catalog.list_series(connection, study="st7", limit=20)
    await catalog.get_series(connection, "s7")
    await catalog.series_jobs(connection, "s7")
    await catalog.find_job(connection, "j7")
    await catalog.artefacts(connection, keys)
    await catalog.addresses(connection, ["inbox#0123456789abcdef"])
    await catalog.get_object(connection, "inbox/key-7")
    await catalog.objects(connection, limit=20)
    await catalog.objects(connection, status=ObjectStatus.REJECTED, limit=20)
    for condition in ({"uid": "st7"}, {"job_id": "j200"}, {"what": "series.validated.v1"}, {}):
        await catalog.audit(connection, after=100, **condition)
    some = Scope(frozenset({"p7"}))
    for scope in (EVERYTHING, some):
        for wanted in (
            SeriesFilter(series_uid="s7", derived=None),
            SeriesFilter(study_uid="st7"),
            SeriesFilter(patient_id="P-7"),
            SeriesFilter(accession_number="A-7"),
        ):
            await search.search_series(connection, scope, wanted, limit=20)
        await search.find_job(connection, scope, "j7")
        await search.upload_series(connection, scope, "u7")
        await search.progress_since(connection, scope, datetime(2026, 1, 14, 21, tzinfo=UTC))
        # A page of the newest, without the count of all.
        await search._page(connection, search._fitting(scope, SeriesFilter()), 20, 0)
    for wanted in (
        SeriesFilter(study_date_from="20200111", study_date_to="20200111", derived=True),
        SeriesFilter(study_uid="st33", derived=True),
        SeriesFilter(patient_name="Name^77", derived=True),
    ):
        for scope in (Scope(frozenset({"p0"})), EVERYTHING):
            await search._found(connection, (await connection.execute(search._fitting(scope, wanted))).all())
    await described.put_derived(connection, {}, keys, "st7", Description())
    await search.progress_of(connection, [keys])
    await recording.lock_job(connection, keys)
    await settling.read_job(connection, keys)


async def first_columns(engine: AsyncEngine) -> dict[str, str]:
    """Return the first column of each index."""
    query = text("SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid, 1, true) FROM pg_index")
    async with reading(engine) as connection:
        return {row[0]: row[1] for row in await connection.execute(query)}


def reads_all(step: dict[str, Any], firsts: dict[str, str]) -> bool:
    """Whether a step reads all of a table of ours, or all of an index of it."""
    if step["Node Type"] == "Seq Scan":
        return step["Relation Name"] in {table.name for table in TABLES}
    if "Index Name" not in step:
        return False
    return re.search(rf"\b{firsts[step['Index Name']]}\b", step.get("Index Cond", "")) is None


async def test_every_query_uses_an_index_and_every_index_is_used(engine: AsyncEngine, tmp_path: Path) -> None:
    """No table is read from end to end but to give its first rows, and no index is written for nothing."""
    with asked(engine) as statements:
        await ask_the_ledger(engine, tmp_path)
        async with transaction(engine) as connection:
            await ask_the_catalog(connection)
    firsts = await first_columns(engine)
    used: set[str] = set()
    for statement, plan in (await plans(engine, statements)).items():
        steps = list(nodes(plan))
        # In the order of an index, and so that it ends soon: what PostgreSQL does for LIMIT.
        first = next((step for step in steps if "Scan" in step["Node Type"]), plan)
        walks = plan["Node Type"] == "Limit" and "Index Name" in first
        walks = walks and not any(step["Node Type"] in READ_ALL_FIRST for step in steps)
        rest = [step for step in steps if not (walks and step is first)]
        assert not any(reads_all(step, firsts) for step in rest), f"{statement}\n{json.dumps(plan, indent=1)}"
        used |= {step["Index Name"] for step in steps if "Index Name" in step}
    ours = text(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisunique AND indrelid::regclass::text ~ :of"
    )
    async with reading(engine) as connection:
        indexes = set((await connection.execute(ours, {"of": "^(ingest_|catalog_|audit|index_)"})).scalars())
    assert indexes - used == IDLE
