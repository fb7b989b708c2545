"""What became of an upload, asked of either database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import insert

from voxelmill_gateway.uploads.outcome import outcome_of
from voxelmill_shared.catalog.scope import Scope
from voxelmill_shared.catalog.tables import METADATA, OBJECTS
from voxelmill_shared.database import open_database, reading, transaction

UPLOAD = "0123456789abcdef" * 2
PLACE = f"inbox/uploads/{UPLOAD}/"
EMPTY = ("version_id", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "modality")
OF_DEFAULT = Scope(frozenset({"default"}))


def row(address, status, reason="", upload_id=UPLOAD, project="default"):
    return {
        "address": address,
        "etag": "e",
        "size": 1,
        "kind": "dicom",
        "status": status,
        "reason": reason,
        "detail": reason,
        "members": 0,
        "warnings": [],
        "upload_id": upload_id,
        "project": project,
        "event_time": datetime.now(UTC),
        "event_id": "e",
        **dict.fromkeys(EMPTY, ""),
    }


async def test_files_and_members_of_archives_are_counted_apart(database_url):
    """A file settles once, however much its archive holds; what an archive refused is no file of the upload."""
    rows = [
        row(f"{PLACE}000000.dcm", "validated"),
        row(f"{PLACE}000001.dcm", "rejected", "not-dicom"),
        row(f"{PLACE}000002.zip", "validated"),
        row(f"{PLACE}000002.zip!../0.dcm", "rejected", "archive-unsafe-member"),
        row("work/members/0", "validated", upload_id=f"{UPLOAD}/archive-1"),
        row("inbox/other.dcm", "validated", upload_id="f" * 32),
    ]
    engine = open_database(database_url)
    async with transaction(engine) as connection:
        await connection.run_sync(METADATA.create_all)
        for one in rows:
            await connection.execute(insert(OBJECTS).values(**one))
    async with reading(engine) as connection:
        became = await outcome_of(connection, OF_DEFAULT, UPLOAD)
        stranger = await outcome_of(connection, Scope(frozenset({"other"})), UPLOAD)
    await engine.dispose()
    assert (became.settled, became.members) == (3, 2)
    assert {(one.number, one.reason) for one in became.refused} >= {(1, "not-dicom"), (None, "archive-unsafe-member")}
    assert (stranger.settled, stranger.members, stranger.refused_total) == (0, 0, 0)
