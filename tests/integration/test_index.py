"""Index on a real database and a real store: events in any order, repeated, replayed, and by several replicas."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from integration.index_kit import FILES, Index, Series
from voxelmill_index.settling import read_job
from voxelmill_index.tables import METADATA as INDEX_METADATA
from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.tables import METADATA, STAGES
from voxelmill_shared.database import is_sqlite, reading, transaction
from voxelmill_shared.events import ObjectValidated, Stage, StageFailed, Status
from voxelmill_shared.migrations import differences
from voxelmill_shared.outcome import Done, Retry
from voxelmill_shared.privacy import object_digest
from voxelmill_shared.receipt_check import verify_receipt

if TYPE_CHECKING:
    from voxelmill_shared.events import Envelope

UIDS = (f"1.2.826.{number}" for number in itertools.count(1000))


@pytest.fixture
def series(index: Index) -> Series:
    """Give a series that nobody has heard of."""
    return Series(index.store, next(UIDS))


async def take_all(index: Index, envelopes: list[Envelope]) -> None:
    """Take messages one after the other; all must be done at once."""
    for envelope in envelopes:
        assert await index.take(envelope) == Done()


async def test_migrations_make_the_tables_that_the_code_works_with(index: Index, database_url: str) -> None:
    """What Alembic makes and what SQLAlchemy is told do not drift apart."""
    assert index.engine
    assert await differences(database_url, METADATA) == []
    assert await differences(database_url, INDEX_METADATA) == []


async def test_a_job_that_goes_well_ends_with_a_receipt_and_one_event(index: Index, series: Series) -> None:
    """All stages done: the job is complete, its receipt names every artefact and verifies, and one event says so."""
    await take_all(index, await series.all())

    (event,) = await index.indexed()
    assert event.status is Status.COMPLETE
    assert event.job() == series.keys.job_id
    assert index.notified == [True]
    receipt = await index.receipt(event)
    assert [artefact.name for artefact in receipt.artefacts] == sorted(name for f in FILES.values() for name in f)
    assert {stage: summary.outcome for stage, summary in receipt.stages.items()} == dict.fromkeys(FILES, "done")
    assert [instance.object.key for instance in receipt.inputs] == [f"{series.uid}/{n}.dcm" for n in (1, 2)]
    assert receipt.warnings == ("thumbnail: thumbnail was odd", "segment: segment was odd", "mesh: mesh was odd")
    assert receipt.versions["mesh"] == "9.8.7"
    assert receipt.trace_id == "ab" * 16
    assert await verify_receipt(index.store, event.receipt.key) == []


async def test_the_catalog_shows_what_has_happened(index: Index, series: Series) -> None:
    """The read model tells of the series, its job, its stages, its objects and its files."""
    await take_all(index, await series.all())

    async with reading(index.engine) as connection:
        view = await catalog.get_series(connection, series.uid)
        objects = await catalog.objects(connection)
        files = await catalog.artefacts(connection, series.keys)
    assert view is not None
    assert view.job is not None
    assert (view.modality, view.instances, view.revisions) == ("CT", 2, 1)
    assert view.job.status is JobStatus.COMPLETE
    assert not view.job.superseded
    assert [stage.outcome for stage in view.job.stages] == [StageOutcome.DONE] * len(Stage)
    assert view.job.stage(Stage.MESH).elapsed == 1.5
    assert view.job.stage(Stage.MESH).seconds == {"domain": 1.5}
    assert view.job.artefacts == len(files) == 6
    assert [(found.status, found.reason) for found in objects] == [
        (ObjectStatus.SKIPPED, "localizer"),
        (ObjectStatus.VALIDATED, ""),
        (ObjectStatus.VALIDATED, ""),
    ]


@pytest.mark.parametrize("story", ["well", "skipped", "failed", "replayed"])
async def test_any_order_and_any_repetition_give_the_same_catalog(index: Index, story: str) -> None:
    """However events arrive, catalog and receipt end the same; where nothing fails, just one fact is published."""

    async def tell(series: Series) -> list[Envelope]:
        events = [*series.objects(), await series.validated(), await series.done(Stage.THUMBNAIL)]
        if story == "skipped":
            return [*events, series.skipped(Stage.SEGMENT)]
        if story == "failed":
            return [*events, series.failed(Stage.SEGMENT), series.failed(Stage.SEGMENT, replays=1)]
        if story == "replayed":
            events += [series.failed(Stage.SEGMENT), series.failed(Stage.MESH)]
        return [*events, await series.done(Stage.SEGMENT), await series.done(Stage.MESH)]

    usual = Series(index.store, next(UIDS))
    await take_all(index, await tell(usual))
    expected = await index.contents(usual.uid)
    last = (await index.indexed(usual.uid))[-1]
    receipt = (await index.receipt(last)).to_json().decode().replace(usual.uid, "UID")

    loop = asyncio.get_running_loop()

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def shuffled(data: st.DataObject) -> None:
        series = Series(index.store, next(UIDS))
        events = asyncio.run_coroutine_threadsafe(tell(series), loop).result()
        order = data.draw(st.permutations(range(len(events))))
        again = data.draw(st.lists(st.sampled_from(order), max_size=4))
        asyncio.run_coroutine_threadsafe(check(series, [events[n] for n in (*order, *again)]), loop).result()

    async def check(series: Series, events: list[Envelope]) -> None:
        await take_all(index, events)
        assert await index.contents(series.uid) == expected
        indexed = await index.indexed(series.uid)
        assert (await index.receipt(indexed[-1])).to_json().decode().replace(series.uid, "UID") == receipt
        if story in ("well", "skipped"):
            assert len(indexed) == 1

    await asyncio.to_thread(shuffled)


async def test_a_skipped_segmentation_skips_the_mesh_and_the_job_is_complete(index: Index, series: Series) -> None:
    """Nobody tells of the mesh, because nothing came to it: the reason is that of the stage before."""
    await take_all(index, [await series.validated(), await series.done(Stage.THUMBNAIL), series.skipped(Stage.SEGMENT)])
    (event,) = await index.indexed()
    assert event.status is Status.COMPLETE
    assert event.skipped_stages == (Stage.SEGMENT, Stage.MESH)
    receipt = await index.receipt(event)
    assert receipt.stages[Stage.MESH].reason == "segment was skipped: not for this series"


async def test_a_failure_makes_the_job_partial_and_a_replay_mends_it(index: Index, series: Series) -> None:
    """Partial first; processing while the mesh is missing; complete, with a new receipt and another fact, at last."""
    await take_all(index, [await series.validated(), series.failed(Stage.SEGMENT), await series.done(Stage.THUMBNAIL)])
    (partial,) = await index.indexed()
    assert partial.status is Status.PARTIAL
    assert (partial.failed_stages, partial.skipped_stages) == ((Stage.SEGMENT,), (Stage.MESH,))
    assert (await index.receipt(partial)).stages[Stage.SEGMENT].reason == "out of memory 0"
    assert await verify_receipt(index.store, partial.receipt.key) == []

    await take_all(index, [await series.done(Stage.SEGMENT)])
    async with reading(index.engine) as connection:
        job = await catalog.find_job(connection, series.keys.job_id)
    assert job is not None
    assert job.status is JobStatus.PROCESSING
    assert job.stage(Stage.MESH).outcome is StageOutcome.PENDING

    await take_all(index, [await series.done(Stage.MESH)])
    first, second = await index.indexed()
    assert first == partial
    assert second.status is Status.COMPLETE
    assert second.event_id() != partial.event_id()
    assert await verify_receipt(index.store, second.receipt.key) == []


async def test_work_that_is_done_stays_done(index: Index, series: Series) -> None:
    """The news that an earlier attempt had failed comes late, and changes nothing."""
    await take_all(index, [*await series.all(), series.failed(Stage.SEGMENT)])
    assert [event.status for event in await index.indexed()] == [Status.COMPLETE]


async def test_a_new_revision_supersedes_the_old_one_and_deletes_nothing(index: Index, series: Series) -> None:
    """The series shows its newest revision, even if the old one settles after it."""
    *before, last = await series.all()
    late = Series(index.store, series.uid, revision=2)
    await take_all(index, [*before, *await late.all(), last])

    async with reading(index.engine) as connection:
        view = await catalog.get_series(connection, series.uid)
        new, old = await catalog.series_jobs(connection, series.uid)
    assert view is not None
    assert view.job == new
    assert (new.revision, new.superseded) == (2, False)
    assert (old.revision, old.superseded) == (1, True)
    assert (view.instances, view.revisions) == (3, 2)
    assert {event.revision for event in await index.indexed()} == {1, 2}
    for event in await index.indexed():
        assert await verify_receipt(index.store, event.receipt.key) == []


async def test_replicas_that_take_the_last_events_at_once_publish_once(index: Index, other: Index) -> None:
    """Two replicas, every event twice and all at once: one of them sees the job complete, and no event is refused."""
    jobs = [Series(index.store, next(UIDS)) for _ in range(3)]
    events = [event for series in jobs for event in await series.all()]
    outcomes = await asyncio.gather(*(replica.take(event) for event in events for replica in (index, other)))
    assert set(outcomes) == {Done()}
    for series in jobs:
        (event,) = await index.indexed(series.uid)
        assert event.status is Status.COMPLETE
        assert await verify_receipt(index.store, event.receipt.key) == []


async def test_a_receipt_made_from_old_knowledge_is_made_anew(index: Index, other: Index, series: Series) -> None:
    """A replica that was slow to write its partial receipt does not overwrite the complete one for good."""
    await take_all(index, [await series.validated(), series.failed(Stage.SEGMENT), await series.done(Stage.THUMBNAIL)])
    async with reading(other.engine) as connection:
        old = await read_job(connection, series.keys)
    assert old is not None
    await take_all(index, [await series.done(Stage.SEGMENT), await series.done(Stage.MESH)])
    facts = await index.indexed()

    assert await other.handler.settle(old) is False
    assert await index.indexed() == facts
    assert (await index.receipt(facts[-1])).status is Status.COMPLETE


async def test_a_receipt_that_vanished_is_written_again(index: Index, series: Series) -> None:
    """A redelivered event finds that the receipt does not stand, and writes the same bytes; nothing is published."""
    events = await series.all()
    await take_all(index, events)
    (event,) = await index.indexed()
    await index.store.delete(event.receipt.key)
    await take_all(index, events[-1:])
    assert (await index.receipt(event)).status is Status.COMPLETE
    assert await index.indexed() == [event]


async def test_a_missing_manifest_is_waited_for(index: Index, series: Series) -> None:
    """What the events said is kept; the receipt is written when the message comes again and the manifest is there."""
    events = await series.all()
    manifest = await index.store.read(series.keys.manifest)
    await index.store.delete(series.keys.manifest)
    for event in events[:-1]:
        await index.take(event)
    outcome = await index.take(events[-1])
    assert isinstance(outcome, Retry)
    assert outcome.error_class == "document-missing"
    assert series.keys.manifest in outcome.reason
    assert await index.indexed() == []

    await index.store.write(series.keys.manifest, manifest)
    assert await index.take(events[-1]) == Done()
    assert len(await index.indexed()) == 1


async def test_a_record_with_another_digest_is_not_believed(index: Index, series: Series) -> None:
    """The catalog never holds what an event did not vouch for."""
    event = await series.done(Stage.MESH)
    await index.store.write(series.keys.stage_record(Stage.MESH), b"{}")
    outcome = await index.take(event)
    assert isinstance(outcome, Retry)
    assert outcome.error_class == "document-changed"
    async with reading(index.engine) as connection:
        assert await catalog.find_job(connection, series.keys.job_id) is None


async def test_two_attempts_at_one_stage_leave_the_record_of_the_last(index: Index, series: Series) -> None:
    """Both wrote the record and said so; the first one's event cannot be verified any more, and that is no failure."""
    first = await series.done(Stage.MESH, seconds=1)
    second = await series.done(Stage.MESH, seconds=2)
    assert isinstance(await index.take(first), Retry)
    assert await index.take(second) == Done()
    assert await index.take(first) == Done()
    async with reading(index.engine) as connection:
        job = await catalog.find_job(connection, series.keys.job_id)
        trail = await catalog.audit(connection, job_id=series.keys.job_id)
    assert job is not None
    assert job.stage(Stage.MESH).elapsed == 2
    assert [entry.event_id for entry in trail] == [str(second.id)]  # the same fact, so the same event


async def test_an_object_shows_what_became_of_it_last(index: Index, series: Series) -> None:
    """Failed, then replayed and taken; a replacement under the same key is what counts then. In any order."""
    reference = series.reference(1)
    failed = StageFailed(
        stage=Stage.INGEST, queue="q", error_class="killed", reason="r", attempts=5, object_address=reference.address()
    )
    taken, *_ = series.objects()
    replaced = ObjectValidated(
        object=reference.model_copy(update={"etag": "new", "size": 7}), kind="archive", members=2
    )
    story = [series.wrap(failed), taken.model_copy(update={"time": series.wrap(failed).time}), series.wrap(replaced)]
    for order in itertools.permutations(story):
        await take_all(index, list(order))
        async with reading(index.engine) as connection:
            (view,) = await catalog.objects(connection)
        assert (view.status, view.size, view.kind, view.members) == (ObjectStatus.VALIDATED, 7, "archive", 2)


async def test_a_dead_letter_about_an_object_shows_at_the_object(index: Index, series: Series) -> None:
    """Whoever looks for failed objects finds it with its reason; a failure in index is none of the object's."""
    address = series.reference(1).address()
    failure = {"queue": "q", "error_class": "killed", "reason": "out of memory", "attempts": 5}
    await take_all(
        index,
        [
            series.wrap(StageFailed(stage=Stage.INGEST, object_address=address, **failure)),
            series.wrap(StageFailed(stage=Stage.INDEX, object_address="inbox/other", **failure)),
        ],
    )
    async with reading(index.engine) as connection:
        (view,) = await catalog.objects(connection, ObjectStatus.FAILED)
        counts = await catalog.counts(connection)
    assert (view.address, view.reason, view.detail) == (address, "killed", "out of memory")
    assert counts.audit == 2


async def test_the_audit_trail_has_each_event_once(index: Index, series: Series) -> None:
    """Who, what, on what, with which outcome, when, in which trace; and redelivery adds nothing."""
    events = await series.all()
    await take_all(index, [*events, *events])
    async with reading(index.engine) as connection:
        trail = await catalog.audit(connection)
        of_instance = await catalog.audit(connection, uid=f"{series.uid}.1")
        pages = [await catalog.audit(connection, after=trail[number].number, limit=2) for number in (0, 2)]
    assert [entry.event_id for entry in trail] == [str(event.id) for event in events]
    assert [entry.what for entry in of_instance] == ["object.validated.v1"]
    assert pages == [trail[1:3], trail[3:5]]
    skipped = trail[2]
    assert (skipped.who, skipped.outcome, skipped.reason) == (
        "voxelmill/test",
        "skipped",
        "localizer: a scout is no slice",
    )
    assert skipped.occurred == events[2].time
    assert skipped.trace_id == "ab" * 16
    assert skipped.object_address == object_digest(f"inbox/{series.uid}/0.dcm")


@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
async def test_the_audit_trail_can_only_grow(index: Index, series: Series, verb: str) -> None:
    """The database itself refuses to change or to remove a record. SQLite has no TRUNCATE."""
    await take_all(index, series.objects())
    if verb == "TRUNCATE" and is_sqlite(index.engine):
        verb = "DELETE"
    statement = {"UPDATE": "UPDATE audit SET who = ''", "DELETE": "DELETE FROM audit", "TRUNCATE": "TRUNCATE audit"}
    with pytest.raises(DBAPIError, match="can only grow"):
        async with transaction(index.engine) as connection:
            await connection.execute(text(statement[verb]))
    async with reading(index.engine) as connection:
        assert (await catalog.counts(connection)).audit == 3


async def test_the_record_and_its_audit_stand_or_fall_together(index: Index, series: Series) -> None:
    """An error after the audit record is written leaves neither record nor audit behind."""
    event = await series.validated()
    async with transaction(index.engine) as connection:
        await connection.run_sync(STAGES.drop)
    with pytest.raises(DBAPIError):
        await index.take(event)
    async with transaction(index.engine) as connection:
        await connection.run_sync(STAGES.create)
    async with reading(index.engine) as connection:
        assert (await catalog.counts(connection)).audit == 0
    assert await index.take(event) == Done()


async def test_hostile_text_is_recorded(index: Index, series: Series) -> None:
    """NUL and very long words of a broken file do not stop the row that tells of its rejection."""
    envelope = series.objects()[-1]
    data = {**envelope.data, "detail": "a\0b", "modality": "X" * 10_000, "reason": "\U0001f480"}
    assert await index.take(envelope.model_copy(update={"data": data})) == Done()
    async with reading(index.engine) as connection:
        (view,) = await catalog.objects(connection)
    assert view.detail == "a\ufffdb"
