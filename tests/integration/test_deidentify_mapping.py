"""The way from copies back to their originals: kept once, encrypted, told to who has the key, and that on record."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError

from e2e.command import voxelmill
from voxelmill_ingest.deidentify.errors import DeidentificationKeyError, ProjectUnknownError
from voxelmill_ingest.deidentify.job import Copy, Patient
from voxelmill_ingest.deidentify.keys import ProjectKeys
from voxelmill_ingest.deidentify.mapping import Disclosed, Mapping
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import disclosures, outbox, pseudonyms
from voxelmill_shared.database import open_database, reading, transaction
from voxelmill_shared.events import Envelope, PseudonymDisclosed, open_envelope
from voxelmill_shared.migrations import upgrade

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a key of 32 characters, or longer"


async def test_the_way_back_is_kept_once_and_encrypted(database_url: str) -> None:
    """Replicas meet one new patient at once: one row for each original, none of them legible, and who asked is known."""
    await upgrade(database_url, package=MIGRATIONS, version_table=VERSION_TABLE)
    engines = [open_database(database_url) for _ in range(2)]
    keys = ProjectKeys.derive(KEY, "project")
    replicas = [Mapping(engine, keys, lambda: datetime(2030, 1, 1, tzinfo=UTC)) for engine in engines]
    await asyncio.gather(*(mapping.check_key() for mapping in replicas))
    patient = Patient("id\0\0004711", {"id": "4711", "name": "Doe^Jane"}, "VMPSEUDONYM", -77)
    uids = {f"1.2.3.{number}": keys.secrets.uid(f"1.2.3.{number}") for number in range(2000)}
    copy = Copy(".dcm", uids, patient)
    for _ in range(2):
        await asyncio.gather(*(one.keep("inbox/Jane Doe.dcm", "deidentified/1.dcm", copy) for one in replicas))
    mapping, other = replicas[0], Mapping(engines[0], ProjectKeys.derive(KEY, "other"), replicas[0].now)
    async with reading(engines[0]) as connection:
        rows = (await connection.execute(select(pseudonyms))).all()
    assert len(rows) == 2002
    assert not [row for row in rows if b"Jane" in row.sealed or "Jane" in str(row) or "1.2.3." in str(row)]
    found = [Disclosed("patient", "VMPSEUDONYM", {"id": "4711", "name": "Doe^Jane", "shift_days": -77})]
    assert await mapping.disclose("VMPSEUDONYM", "ann") == found
    assert await mapping.disclose("4711", "bob") == found
    original = {"uid": "1.2.3.7"}
    for asked in ("1.2.3.7", uids["1.2.3.7"]):
        assert await mapping.disclose(asked, "ann") == [Disclosed("uid", uids["1.2.3.7"], original)]
    for asked in ("inbox/Jane Doe.dcm", "deidentified/1.dcm"):
        (one,) = await mapping.disclose(asked, "ann")
        assert one.original == {"address": "inbox/Jane Doe.dcm"}
    assert await mapping.disclose("Jane", "eve") == []
    with pytest.raises(ProjectUnknownError):
        await other.disclose("VMPSEUDONYM", "eve")
    await other.check_key()
    assert await other.disclose("VMPSEUDONYM", "eve") == []
    with pytest.raises(DeidentificationKeyError):
        await Mapping(engines[0], ProjectKeys.derive(KEY + "!", "project"), mapping.now).disclose("4711", "eve")
    async with reading(engines[0]) as connection:
        told = [
            (row.project, row.who, row.pseudonyms)
            for row in await connection.execute(select(disclosures).order_by(disclosures.c.number))
        ]
    assert told[:2] == [("project", "ann", ["VMPSEUDONYM"]), ("project", "bob", ["VMPSEUDONYM"])]
    assert told[-2:] == [("project", "eve", []), ("other", "eve", [])]
    async with reading(engines[0]) as connection:
        bodies = (await connection.execute(select(outbox.c.body).order_by(outbox.c.id))).scalars().all()
    events = [open_envelope(Envelope.decode(body)) for body in bodies]
    assert all(isinstance(event, PseudonymDisclosed) for event in events)
    assert [(event.project, event.who, list(event.pseudonyms)) for event in events] == told
    assert b"Jane" not in b"".join(bodies)
    assert b"4711" not in b"".join(bodies)
    with pytest.raises(DBAPIError, match="can only grow"):
        async with transaction(engines[0]) as connection:
            await connection.execute(delete(disclosures))
    for engine in engines:
        await engine.dispose()


async def test_the_command_tells_who_a_pseudonym_is(tmp_path: Path) -> None:
    """Both ways, with the key alone, and each answer is on record."""
    url = f"sqlite:///{tmp_path}/voxelmill.db"
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    engine = open_database(url)
    mapping = Mapping(engine, ProjectKeys.derive(KEY, "lung"), lambda: datetime.now(UTC))
    await mapping.check_key()
    patient = Patient("id\0\0004711", {"id": "4711", "issuer": "", "name": "Doe^Jane"}, "VMPSEUDONYM", -77)
    await mapping.keep("inbox/1.dcm", "deidentified/1.dcm", Copy(".dcm", {}, patient))
    ask = ("--data", tmp_path, "--project", "lung")
    key = {"VOXELMILL_INGEST_DEIDENTIFY_KEY": KEY}
    told = voxelmill("pseudonym", "VMPSEUDONYM", *ask, **key)
    assert (told.code, told.out) == (0, "VMPSEUDONYM: patient: id 4711, name Doe^Jane, shift days -77\n")
    back = voxelmill("pseudonym", "4711", *ask, "--json", **key)
    assert back.document["found"][0]["pseudonym"] == "VMPSEUDONYM"
    failures = [
        (1, "no pseudonym and no original", voxelmill("pseudonym", "nobody", *ask, **key)),
        (2, "not the key", voxelmill("pseudonym", "4711", *ask, VOXELMILL_INGEST_DEIDENTIFY_KEY=KEY + "!")),
        (2, "needs the project's key", voxelmill("pseudonym", "4711", *ask)),
    ]
    for code, said, ended in failures:
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert said in ended.err
        assert ended.err.count("\n") == 1
    async with reading(engine) as connection:
        rows = (await connection.execute(select(disclosures))).all()
    assert [row.pseudonyms for row in rows] == [["VMPSEUDONYM"], ["VMPSEUDONYM"], []]
    assert all("@" in row.who for row in rows)
    await engine.dispose()
