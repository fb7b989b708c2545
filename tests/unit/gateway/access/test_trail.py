"""The records of who saw what: durable before the answer, once a minute for the same, never a flood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.access.refusals import MOST_PER_MINUTE, Refusals
from voxelmill_gateway.tables import METADATA, OUTBOX
from voxelmill_gateway.trail import Trail
from voxelmill_shared.database import open_database, reading, transaction

ALICE = Caller("alice@issuer", Role.VIEWER, frozenset({"chest"}))
BOB = Caller("bob@issuer", Role.VIEWER, None)


class Clock:
    now = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def trail(gateway, clock):
    return Trail(gateway.engine, gateway.relay, "test", clock=clock)


async def test_a_record_is_stored_when_it_is_said_to_be(trail, recorded, clock):
    """Who, what, on what, when."""
    await trail.record(ALICE, "uploaded", project="chest", job="j1", detail="3 objects")
    (record,) = await recorded()
    assert (record.who, record.action, record.project, record.job_id, record.detail, record.outcome) == (
        "alice@issuer",
        "uploaded",
        "chest",
        "j1",
        "3 objects",
        "done",
    )
    assert record.period_start == clock.now


async def test_the_same_read_is_recorded_once_a_minute(trail, recorded, clock):
    """A viewer asks for five hundred frames of a series: one record."""
    for number in range(100):
        await trail.record(ALICE, "read", study="1.2", series="1.2.3", instance=f"1.2.3.{number}")
    clock.now += timedelta(seconds=29)
    await trail.record(ALICE, "read", study="1.2", series="1.2.3")
    assert [record.sop_instance_uid for record in await recorded()] == [""]
    clock.now += timedelta(seconds=1)
    await trail.record(ALICE, "read", study="1.2", series="1.2.3")
    assert [record.period_start.minute for record in await recorded()] == [0, 1]


async def test_two_gateways_record_the_same_read_under_one_id(gateway, trail, recorded, clock):
    """The event is the same, so that index writes it down once."""
    other = Trail(gateway.engine, gateway.relay, "other", clock=clock)
    await trail.record(ALICE, "read", series="1.2.3")
    await other.record(ALICE, "read", series="1.2.3")
    assert len(await recorded()) == 1


async def test_what_differs_is_recorded_each(trail, recorded):
    """Another caller, action, series, job, outcome or detail."""
    await trail.record(ALICE, "read", series="1.2.3")
    await trail.record(BOB, "read", series="1.2.3")
    await trail.record(ALICE, "download", series="1.2.3")
    await trail.record(ALICE, "read", series="1.2.4")
    await trail.record(ALICE, "download", job="j1", detail="mesh.stl")
    await trail.record(ALICE, "download", job="j1", detail="label.nii.gz")
    assert len(await recorded()) == 6


async def test_what_was_done_twice_is_recorded_twice(trail, recorded, clock):
    """Two uploads are two, also in one minute."""
    await trail.record(ALICE, "uploaded", project="chest")
    clock.now += timedelta(milliseconds=1)
    await trail.record(ALICE, "uploaded", project="chest")
    assert len(await recorded()) == 2


async def test_a_record_that_failed_is_not_taken_for_written(gateway, clock, tmp_path):
    """Nothing is shown then, and the next try writes."""
    engine = open_database(f"sqlite:///{tmp_path}/empty.db")
    try:
        trail = Trail(engine, gateway.relay, "test", clock=clock)
        with pytest.raises(OperationalError, match="no such table"):
            await trail.record(ALICE, "read", series="1.2.3")
        async with transaction(engine) as connection:
            await connection.run_sync(METADATA.create_all)
        await trail.record(ALICE, "read", series="1.2.3")
        async with reading(engine) as connection:
            assert len((await connection.execute(select(OUTBOX))).all()) == 1
    finally:
        await engine.dispose()


async def test_a_flood_of_failures_leaves_some_records(trail, recorded, clock):
    """One for each address and reason, a bounded number in a minute, and one that says that there were more."""
    refusals = Refusals(trail, clock=clock)
    for number in range(500):
        await refusals.note(f"10.0.{number % 250}.1", "signature")
    await refusals.note("<script>" * 1000, "signature")
    records = await recorded()
    assert len(records) == MOST_PER_MINUTE + 1
    assert records[0].detail == "signature, from 10.0.0.1"
    assert records[-1].detail == "more refused in this minute, from many addresses"
    clock.now += timedelta(minutes=1)
    await refusals.note("10.0.0.1", "signature")
    assert len(await recorded()) == MOST_PER_MINUTE + 2


async def test_failures_over_http_are_recorded_in_bounds(client, recorded):
    """The same wrong key from the same address, again and again: one record."""
    for _ in range(10):
        assert (await client.get("/session", headers={"X-API-Key": "vmk_wrong"})).status_code == 401
    assert [record.action for record in await recorded()] == ["login-refused"]


async def test_a_stranger_without_a_key_is_not_recorded(client, recorded):
    """A page that is opened before somebody signs in is no attack."""
    assert (await client.get("/session")).status_code == 401
    assert await recorded() == []


async def test_who_asks_for_what_another_project_has_is_written_down(client, gateway, recorded, monkeypatch):
    """Once a minute, and the same where nobody has it: neither the record nor its time tells the two apart."""
    monkeypatch.setattr(gateway.trail, "_clock", Clock())
    _, text = await gateway.keys.create("page", Role.UPLOADER, frozenset({"chest"}), by="test")
    headers = {"X-API-Key": text}
    for number in range(3):
        assert (await client.get(f"/series/1.2.{number}", headers=headers)).status_code == 404
    asked = {"project": "other", "files": [{"name": "a.dcm", "size": 1}]}
    assert (await client.post("/uploads", json=asked, headers=headers)).status_code == 403
    refused = [one for one in await recorded() if one.action == "refused"]
    assert [(one.outcome, one.series_instance_uid) for one in refused] == [("refused", "")] * 2
    assert [one.detail for one in refused] == [
        "what is not there, or is another project's",
        "to write into another project",
    ]


async def test_who_has_all_projects_was_refused_nothing(client, gateway, recorded):
    """What such a caller does not find is not there."""
    _, text = await gateway.keys.create("page", Role.VIEWER, None, by="test")
    assert (await client.get("/series/1.2.3", headers={"X-API-Key": text})).status_code == 404
    assert [one.action for one in await recorded()] == ["key-created"]
