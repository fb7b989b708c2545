"""The audit trail as a chain: what breaks it is found and named, replicas build one chain, and FHIR can read it."""

from __future__ import annotations

import asyncio
import itertools
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from e2e.command import voxelmill
from integration.index_kit import Index, Series
from voxelmill_cli import audit
from voxelmill_cli.errors import CommandError
from voxelmill_cli.status import read_object
from voxelmill_index.service import VERSION_TABLE, migrate
from voxelmill_shared import catalog
from voxelmill_shared.catalog.chain import FIELDS, GENESIS, record_hash
from voxelmill_shared.catalog.fhir import audit_event
from voxelmill_shared.catalog.tables import AUDIT, AUDIT_HEAD
from voxelmill_shared.catalog.verification import Head, HeadFormatError, verify_trail
from voxelmill_shared.catalog.views import AuditView
from voxelmill_shared.database import is_sqlite, open_database, reading, transaction
from voxelmill_shared.events import Stage
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.privacy import object_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from voxelmill_shared.catalog.verification import Verification

UIDS = (f"1.2.826.9.{number}" for number in itertools.count(1))


async def tell(index: Index, count: int = 3) -> None:
    """Have events recorded, 3 to a series."""
    for _ in range(count // 3):
        for envelope in Series(index.store, next(UIDS)).objects():
            await index.take(envelope)


async def tamper(engine: AsyncEngine, *statements: str) -> None:
    """Change the trail as somebody can who owns the database."""
    off = (
        [f"DROP TRIGGER audit_{name}" for name in ("refuses_update", "refuses_delete", "head_update", "head_delete")]
        if is_sqlite(engine)
        else [f"ALTER TABLE {name} DISABLE TRIGGER USER" for name in ("audit", "audit_head")]
    )
    async with transaction(engine) as connection:
        for statement in (*off, *statements):
            await connection.execute(text(statement))


async def rewrite(engine: AsyncEngine, start: int) -> None:
    """Compute all hashes anew from a record on, and the head: the work of somebody who knows the code."""
    async with transaction(engine) as connection:
        previous = GENESIS
        for row in (await connection.execute(AUDIT.select().order_by(AUDIT.c.number))).all():
            if row.number >= start:
                previous = record_hash(previous, row.number, {name: getattr(row, name) for name in FIELDS})
                await connection.execute(update(AUDIT).where(AUDIT.c.number == row.number).values(hash=previous))
            else:
                previous = row.hash
            last = row.number
        await connection.execute(update(AUDIT_HEAD).values(number=last, hash=previous))


def said(found: Verification) -> list[tuple[str, int]]:
    return [(fault.kind, fault.number) for fault in found.faults]


COPY = ", ".join(name for name in FIELDS if name != "event_id")
PUT_IN = f"INSERT INTO audit (number, event_id, hash, {COPY}) SELECT 7, 'x', hash, {COPY} FROM audit WHERE number = 6"  # noqa: S608 - all names are ours
SWAP = [f"UPDATE audit SET number = {a} WHERE number = {b}" for a, b in ((-1, 3), (3, 4), (4, -1))]  # noqa: S608 - likewise


@pytest.mark.parametrize(
    ("statements", "faults"),
    [
        (["UPDATE audit SET reason = 'all well' WHERE number = 2"], [("changed", 2)]),
        (["UPDATE audit SET caused_by = '' WHERE number = 2"], [("changed", 2)]),
        (["UPDATE audit SET recorded = occurred WHERE number = 5"], [("changed", 5)]),
        (["DELETE FROM audit WHERE number = 1"], [("missing", 1)]),
        (["DELETE FROM audit WHERE number IN (3, 4)"], [("missing", 3)]),
        (SWAP, [("changed", 3), ("changed", 4), ("changed", 5)]),
        (["DELETE FROM audit WHERE number > 4"], [("cut", 5)]),
        ([PUT_IN], [("changed", 7), ("beyond-head", 7)]),
        (["DELETE FROM audit_head"], [("head", 6)]),
        (["UPDATE audit_head SET hash = 'a'"], [("head", 6)]),
        (["UPDATE audit SET hash = 'a' WHERE number = 2"], [("changed", 2), ("changed", 3)]),
    ],
    ids=["changed", "nulled", "time", "first", "removed", "swapped", "cut", "put in", "no head", "head", "hash"],
)
async def test_what_is_not_as_it_was_recorded_is_named(
    index: Index, statements: list[str], faults: list[tuple[str, int]]
) -> None:
    """Whatever is changed, removed, put in, moved or cut off: where it shows, what stands there, and when."""
    await tell(index, 6)
    sound = await verify_trail(index.engine)
    assert (sound.records, sound.faults, sound.head.number) == (6, [], 6)
    await tamper(index.engine, *statements)
    found = await verify_trail(index.engine)
    assert said(found) == faults
    assert found.faulty == len(faults)
    for fault in found.faults:
        assert str(fault.number) in fault.line or fault.kind in {"head", "beyond-head"}
        if fault.kind == "changed":
            assert fault.what in fault.line
            assert fault.recorded is not None


async def test_a_trail_that_was_rewritten_is_found_by_a_head_from_before(index: Index) -> None:
    """All hashes fit again, so only what was written down elsewhere tells; what came after the head is no fault."""
    await tell(index)
    noted = (await verify_trail(index.engine)).head
    await tell(index)
    assert (await verify_trail(index.engine, noted)).faulty == 0
    await tamper(index.engine, "UPDATE audit SET outcome = 'done' WHERE number = 3")
    await rewrite(index.engine, 3)
    assert said(await verify_trail(index.engine)) == []
    assert said(await verify_trail(index.engine, noted)) == [("rewritten", 3)]
    await tamper_again(index.engine, "DELETE FROM audit WHERE number > 1")
    await rewrite(index.engine, 1)
    assert said(await verify_trail(index.engine)) == []
    assert said(await verify_trail(index.engine, noted)) == [("cut", 2)]
    assert Head.parse(f" {noted}\n") == noted
    with pytest.raises(HeadFormatError, match="NUMBER:HASH"):
        Head.parse("6")


async def tamper_again(engine: AsyncEngine, statement: str) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text(statement))


async def test_replicas_build_one_chain(index: Index, database_url: str) -> None:
    """Many events at once, each twice, through two replicas: numbers without a gap, one record for each event."""
    other = Index.open(database_url, index.store.root)
    envelopes = [envelope for _ in range(8) for envelope in Series(index.store, next(UIDS)).objects()]
    takes = [replica.take(envelope) for envelope in envelopes for replica in (index, other)]
    await asyncio.gather(*takes)
    await other.engine.dispose()
    found = await verify_trail(index.engine)
    assert (found.records, found.faulty, found.head.number) == (24, 0, 24)
    async with reading(index.engine) as connection:
        trail = await catalog.audit(connection)
    assert [record.number for record in trail] == list(range(1, 25))
    assert len({record.event_id for record in trail}) == 24


@pytest.mark.parametrize("statement", ["UPDATE audit_head SET number = number - 1", "DELETE FROM audit_head"])
async def test_the_head_can_only_grow(index: Index, statement: str) -> None:
    """As the trail itself."""
    await tell(index)
    with pytest.raises(DBAPIError, match="can only grow"):
        async with transaction(index.engine) as connection:
            await connection.execute(text(statement))


async def test_records_from_before_are_chained_and_lose_their_keys(database_url: str, tmp_path: Path) -> None:
    """The migration gives every record its hash, puts digests for keys, and the trail is closed again afterwards."""
    package = "voxelmill_index.migrations"
    await upgrade(database_url, package=package, version_table=VERSION_TABLE, target="index_0002")
    engine = open_database(database_url)
    names = ["number", *FIELDS]
    address = "inbox/DOE^JOHN/1.dcm"
    async with transaction(engine) as connection:
        for number in (1, 2, 5):  # numbers were taken by redeliveries too
            values = dict.fromkeys(FIELDS, "x") | {"event_id": f"e{number}", "caused_by": None}
            values |= {"subject": address, "object_address": address, "reason": f"truncated: {address} is cut"}
            values |= dict.fromkeys(("occurred", "recorded"), f"2026-01-0{number} 00:00:00.000000")
            listed = ", ".join(
                "NULL" if values.get(n) is None and n != "number" else f"'{values.get(n, number)}'" for n in names
            )
            await connection.execute(text(f"INSERT INTO audit ({', '.join(names)}) VALUES ({listed})"))  # noqa: S608 - likewise
    await migrate(database_url)
    index = Index(engine, Index.open(database_url, tmp_path).store, Index.open(database_url, tmp_path).handler, [])
    await tell(index)
    found = await verify_trail(engine)
    assert (found.records, said(found), found.head.number) == (6, [], 8)
    async with reading(engine) as connection:
        first = (await catalog.audit(connection))[0]
    digest = object_digest(address)
    assert (first.subject, first.object_address, first.reason) == (digest, digest, f"truncated: {digest} is cut")
    with pytest.raises(DBAPIError, match="can only grow"):
        async with transaction(engine) as connection:
            await connection.execute(text("UPDATE audit SET who = ''"))
    await engine.dispose()
    await index.handler.engine.dispose()


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[tuple[Path, Series]]:
    """Give a folder of `voxelmill up` with the records of one job, of which one stage failed."""
    url = f"sqlite:///{tmp_path}/voxelmill.db"
    await migrate(url)
    index = Index.open(url, tmp_path / "results")
    series = Series(index.store, next(UIDS))
    for envelope in [*await series.all(), series.failed(Stage.MESH)]:
        await index.take(envelope)
    yield tmp_path, series
    await index.engine.dispose()


async def test_the_export_is_fhir(data: tuple[Path, Series]) -> None:
    """Each record is a valid AuditEvent of R4 (which R4B has left as it is), in a file that is whole or not there."""
    folder, series = data
    output = folder / "audit.ndjson"

    async def export(**selection: Any) -> list[AuditEvent]:
        asked = {"since": None, "until": None, "series": None, **selection}
        found = await audit.export(folder, output, progress=lambda _done, _total: None, **asked)
        lines = output.read_text().splitlines()
        assert found["records"] == len(lines)
        return [AuditEvent.model_validate_json(line) for line in lines]

    events = await export(since=audit.read_time("2026-01-01"))
    assert len(events) == 8
    assert [event.outcome for event in events[-2:]] == ["0", "8"]
    assert all(event.agent[0].requestor and event.source.observer and event.entity for event in events)
    # Required by R4, whatever the library asks for (hl7.org/fhir/R4/auditevent.html).
    assert {"type", "recorded", "agent", "source"} <= events[0].model_dump(exclude_none=True).keys()
    assert "inbox/" not in output.read_text()
    assert len(await export(series=series.uid)) == 7
    assert await export(until=audit.read_time("2026-01-01T00:00+14:00")) == []
    with pytest.raises(CommandError, match="no time"):
        audit.read_time("soon")
    assert not [path for path in os.listdir(folder) if path.endswith(".part")]  # noqa: PTH208 - likewise


async def test_a_person_and_a_service_are_agents_of_their_kind() -> None:
    """`user@host` is a human user; a service is an application on its machine."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    fields = dict.fromkeys(FIELDS, "") | {"occurred": moment, "recorded": moment, "caused_by": None}
    fields |= {"event_id": "e", "subject": "project p", "number": 3_000_000_000, "hash": "0" * 64}
    for who, code, kind in (
        ("ann@pacs", "humanuser", "dead-letter.dropped.v1"),
        ("voxelmill/mesh/node/7", "110150", "x"),
    ):
        event = AuditEvent.model_validate(audit_event(AuditView(**{**fields, "who": who, "what": kind})))
        assert event.agent[0].type.coding[0].code == code
        assert event.agent[0].network.address in {"pacs", "node"}
        assert event.type.code == "110100"
        assert event.entity[0].what.identifier.value == "project p"


async def test_a_digest_leads_to_its_object(data: tuple[Path, Series]) -> None:
    """Who may read the catalog finds the key that a log line or an audit record does not say."""
    folder, series = data
    address = f"inbox/{series.uid}/1.dcm"
    found = await read_object(folder, object_digest(address))
    assert (found["object"], found["status"], found["series_instance_uid"]) == (address, "validated", series.uid)
    with pytest.raises(CommandError, match="no object of that name"):
        await read_object(folder, "inbox#0000000000000000")


async def test_the_command_names_what_is_broken(data: tuple[Path, Series]) -> None:
    """Exit code 1, a line for each record, and with `--json` one document."""
    folder, _ = data
    sound = await audit.verify(folder, None, lambda _done, _total: None)
    assert (sound["records"], sound["sound"], sound["exit_code"]) == (8, True, 0)
    engine = open_database(f"sqlite:///{folder}/voxelmill.db")
    await tamper(engine, "UPDATE audit SET who = 'nobody' WHERE number = 4")
    await engine.dispose()
    broken = voxelmill("audit", "verify", "--data", folder, "--since-head", f"8:{'0' * 64}")
    assert broken.code == 1
    assert "record 4 (series.validated.v1 recorded" in broken.out
    assert "rewritten" in broken.out
    assert sound["head"] in broken.out
    with pytest.raises(CommandError, match="no catalog there"):
        await audit.verify(folder / "elsewhere", None, lambda _done, _total: None)
