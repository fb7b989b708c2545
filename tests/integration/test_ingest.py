"""Ingest on a real database and real stores: what becomes of objects, and when series are complete."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from sqlalchemy import update

from integration.ingest_kit import ABDOMEN, CHEST, Ingest, altered, files_of, of
from voxelmill_ingest.reconciler import Reconciler
from voxelmill_ingest.tables import instances, metadata
from voxelmill_shared.database import transaction
from voxelmill_shared.events import (
    Evidence,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    UploadCompleted,
)
from voxelmill_shared.migrations import differences
from voxelmill_shared.outcome import Reject
from voxelmill_shared.plan import Plan, Quality
from voxelmill_shared.privacy import object_digest

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_migrations_make_the_tables_that_the_code_works_with(ingest: Ingest) -> None:
    assert await differences(ingest.database, metadata) == []


async def test_a_completed_upload_completes_its_series_at_once(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN)
    published = await ingest.upload(files, "upload-1")
    assert len(of(ObjectValidated, published)) == 20
    (event,) = await ingest.completed()
    assert (event.instances, event.revision, event.evidence) == (20, 1, Evidence.UPLOAD)
    manifest = await ingest.manifest(event)
    assert manifest.job_id == event.job_id == Plan().job_id(one.object.content() for one in manifest.instances)
    numbers = [one.instance_number for one in manifest.instances]
    assert numbers in (sorted(numbers, key=int), sorted(numbers, key=int, reverse=True))  # type: ignore[arg-type]
    assert await ingest.completed() == []


async def test_a_series_without_gaps_waits_five_seconds_and_another_one_thirty(ingest: Ingest, data: Path) -> None:
    await ingest.upload(files_of(data / ABDOMEN))
    await ingest.upload(files_of(data / "geometry" / "gap_ge_4slices"))
    ingest.clock.wait(4.9)
    assert await ingest.completed() == []
    ingest.clock.wait(0.2)
    (regular,) = await ingest.completed()
    assert (regular.evidence, regular.instances) == (Evidence.GEOMETRY, 20)
    ingest.clock.wait(24)
    assert await ingest.completed() == []
    ingest.clock.wait(1)
    (irregular,) = await ingest.completed()
    assert (irregular.evidence, irregular.instances) == (Evidence.QUIET, 4)


async def test_the_upload_may_be_completed_before_its_objects_arrive(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 3)
    await ingest.handle(UploadCompleted(upload_id="upload-1", objects=3))
    for key, body in files.items():
        assert await ingest.completed() == []
        reference = await ingest.put(key, body)
        await ingest.handle(ObjectUploaded(object=reference, found_by="command", upload_id="upload-1"))
    (event,) = await ingest.completed()
    assert (event.instances, event.evidence) == (3, Evidence.UPLOAD)


async def test_an_upload_that_is_never_completed_holds_its_series_up_for_a_minute_only(
    ingest: Ingest, data: Path
) -> None:
    for key, body in files_of(data / ABDOMEN).items():
        reference = await ingest.put(key, body)
        await ingest.handle(ObjectUploaded(object=reference, found_by="command", upload_id="upload-1"))
    ingest.clock.wait(59)
    assert await ingest.completed() == []
    ingest.clock.wait(2)
    (event,) = await ingest.completed()
    assert event.instances == 20


async def test_a_late_slice_makes_a_second_revision(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN)
    late = files.popitem()
    await ingest.upload(files, "upload-1")
    (first,) = await ingest.completed()
    await ingest.upload(dict([late]))
    ingest.clock.wait(6)
    (second,) = await ingest.completed()
    assert (first.revision, first.instances) == (1, 19)
    assert (second.revision, second.instances, second.evidence) == (2, 20, Evidence.GEOMETRY)
    assert first.job_id != second.job_id
    assert await ingest.stores.results.exists(first.manifest.key)


async def test_the_same_content_under_another_key_is_validated_and_changes_nothing(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 4)
    await ingest.upload(files, "upload-1")
    (first,) = await ingest.completed()
    published = await ingest.upload({f"copy/{key}": body for key, body in files.items()}, "upload-2")
    assert len(of(ObjectValidated, published)) == 4
    assert await ingest.completed() == [first]


async def test_a_moved_series_is_read_where_it_lies_now(ingest: Ingest, data: Path) -> None:
    """Files moved to another folder are the same instances; the next revision's manifest names their new place."""
    files = files_of(data / ABDOMEN)
    late = files.popitem()
    await ingest.upload(files, "upload-1")
    await ingest.completed()
    for key in files:
        await ingest.stores.inbox.delete(key)
    await ingest.upload({f"moved/{key}": body for key, body in files.items()}, "upload-2")
    await ingest.completed()
    await ingest.upload({f"moved/{late[0]}": late[1]}, "upload-3")
    (second,) = await ingest.completed()
    assert second.revision == 2
    manifest = await ingest.manifest(second)
    assert all(instance.object.key.startswith("moved/") for instance in manifest.instances)


async def test_uploading_everything_again_publishes_the_same_series_again(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 4)
    published = await ingest.upload(files, "upload-1")
    (first,) = await ingest.completed()
    assert await ingest.upload(files, "upload-1") == published
    (again,) = await ingest.completed()
    assert again == first
    assert again.event_id() == first.event_id()
    assert set((await ingest.statuses()).values()) == {"validated"}


async def test_a_corrected_object_under_the_same_key_makes_a_new_revision(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 4)
    await ingest.upload(files, "upload-1")
    await ingest.completed()
    key = next(iter(files))
    await ingest.upload({key: altered(files[key])}, "upload-2")
    (event,) = await ingest.completed()
    assert (event.revision, event.instances) == (2, 4)


async def test_an_object_that_is_overwritten_by_another_instance_leaves_its_series(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 4)
    await ingest.upload(files, "upload-1")
    await ingest.completed()
    key = next(iter(files))
    other = next(iter(files_of(data / CHEST, 1).values()))
    await ingest.upload({key: other}, "upload-2")
    ingest.clock.wait(100)
    events = {event.instances: event for event in await ingest.completed()}
    assert events[3].revision == 2
    assert events[1].revision == 1


async def test_another_plan_is_another_job_of_the_same_revision(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 4)
    await ingest.upload(files, "upload-1")
    (first,) = await ingest.completed()
    planned = Ingest(ingest.folder, ingest.database, ingest.clock, plan=Plan(quality=Quality.FAST))
    await planned.upload(files, "upload-2")
    (second,) = await planned.completed()
    await planned.close()
    assert first.revision == second.revision == 1
    assert first.job_id != second.job_id


async def test_one_instance_with_two_contents_is_a_conflict_until_the_first_is_gone(ingest: Ingest, data: Path) -> None:
    ((key, body),) = files_of(data / ABDOMEN, 1).items()
    await ingest.upload({key: body})
    (rejected,) = of(ObjectRejected, await ingest.upload({"other": altered(body)}))
    assert (rejected.reason, rejected.object.key) == ("conflicting-instance", "other")
    assert object_digest(f"inbox/{key}") in rejected.detail
    await ingest.stores.inbox.delete(key)
    published = await ingest.upload({"other": altered(body)})
    assert [event.object.key for event in of(ObjectValidated, published)] == ["other"]


async def test_a_series_cannot_be_in_two_studies(ingest: Ingest, data: Path) -> None:
    body = next(iter(files_of(data / CHEST, 1).values()))
    study = next(iter(of(ObjectValidated, await ingest.upload({"a": body})))).study_instance_uid.encode()
    moved = body.replace(study, study[:-1] + (b"1" if study[-1:] != b"1" else b"2"))
    (rejected,) = of(ObjectRejected, await ingest.upload({"b": moved}))
    assert rejected.reason == "series-in-two-studies"


async def test_an_object_that_is_gone_is_noted_and_counts_as_settled(ingest: Ingest, data: Path) -> None:
    files = files_of(data / ABDOMEN, 2)
    gone = ObjectRef(bucket="inbox", key="gone", etag="0" * 32, size=1)
    await ingest.upload(files)
    for key in files:
        reference = ObjectRef(bucket="inbox", key=key, etag="", size=0)
        await ingest.handle(ObjectUploaded(object=reference, found_by="command", upload_id="upload-1"))
    assert await ingest.handle(ObjectUploaded(object=gone, found_by="notification", upload_id="upload-1")) == []
    await ingest.handle(UploadCompleted(upload_id="upload-1", objects=3))
    (event,) = await ingest.completed()
    assert event.instances == 2
    assert (await ingest.statuses())["gone"] == "missing"


async def test_an_object_of_an_unknown_bucket_is_a_dead_letter(ingest: Ingest) -> None:
    stray = ObjectRef(bucket="elsewhere", key="a", etag="0" * 32, size=1)
    outcome = await ingest.ingest_object(ObjectUploaded(object=stray, found_by="notification"))
    assert isinstance(outcome, Reject)
    assert "elsewhere" in outcome.reason


async def test_a_link_that_leads_out_is_rejected_by_name_and_settles_its_upload(ingest: Ingest, data: Path) -> None:
    """What the store lists and cannot hand out is in the ledger like any other refusal: nothing announces it again."""
    files = files_of(data / ABDOMEN, 2)
    await ingest.upload(files)
    link = ingest.folder / "inbox" / "link"
    link.symlink_to(data / ABDOMEN)
    references = [
        ObjectRef(bucket="inbox", key=stat.key, etag=stat.etag, size=stat.size)
        async for stat in ingest.stores.inbox.list()
    ]
    published = await ingest.handle(UploadCompleted(upload_id="upload-1", objects=len(references)))
    for reference in references:
        published += await ingest.handle(ObjectUploaded(object=reference, found_by="command", upload_id="upload-1"))
    (rejected,) = of(ObjectRejected, published)
    assert (rejected.reason, rejected.severity, rejected.object.key) == ("unsafe-key", "reject", "link")
    assert "leads out" in rejected.detail
    assert (await ingest.statuses())["link"] == "rejected"
    (event,) = await ingest.completed()
    assert (event.instances, event.evidence) == (2, Evidence.UPLOAD)
    transport = ingest.transport
    inbox = ingest.stores.inbox
    reconciler = Reconciler(ingest.engine, inbox, transport, "test", timedelta(seconds=1), grace=timedelta(0))
    assert (await reconciler.once()).announced == 0


async def test_a_key_that_no_database_holds_is_a_dead_letter(ingest: Ingest) -> None:
    """PostgreSQL has no NUL in texts, and no index over very long ones."""
    for key in ("a\0b", "long/" * 1000 + "a", "\ud800"):
        reference = ObjectRef(bucket="inbox", key=key, etag="", size=1)
        outcome = await ingest.ingest_object(ObjectUploaded(object=reference, found_by="notification"))
        assert isinstance(outcome, Reject)
        assert outcome.error_class == "unsafe-key"


async def test_a_rival_in_a_bucket_that_is_gone_stands_no_more(ingest: Ingest, data: Path) -> None:
    """An instance may be held by an object of a bucket that this installation no longer has."""
    ((key, body),) = files_of(data / ABDOMEN, 1).items()
    await ingest.upload({key: body})
    async with transaction(ingest.engine) as connection:
        await connection.execute(update(instances).values(bucket="retired"))
    published = await ingest.upload({"other": altered(body)})
    assert [event.object.key for event in of(ObjectValidated, published)] == ["other"]
    assert (await ingest.statuses())["other"] == "validated"


async def test_localizers_and_other_kinds_are_skipped_and_do_not_hold_the_series_up(ingest: Ingest, data: Path) -> None:
    files = files_of(data / "ct_head_phantom_tilt_mixed_localizer")
    files |= {f"nonimage/{name}": (data / "nonimage" / name).read_bytes() for name in ("rtplan.dcm", "sr.dcm")}
    published = await ingest.upload(files, "upload-1")
    assert sorted(event.reason for event in of(ObjectRejected, published)) == [
        "localizer",
        "not-an-image",
        "not-an-image",
    ]
    assert {event.severity for event in of(ObjectRejected, published)} == {"skip"}
    assert 58 in [event.instances for event in await ingest.completed()]


async def test_a_nifti_volume_is_a_series_of_one(ingest: Ingest, data: Path) -> None:
    folder = data / "nifti"
    plane = nib.Nifti1Image(np.zeros((5, 6), np.int16), np.eye(4))
    files = {
        "volume.nii.gz": (folder / "totalseg" / "example_ct_sm.nii.gz").read_bytes(),
        "plane.nii": plane.to_bytes(),
    }
    published = await ingest.upload(files, "upload-1")
    assert [event.reason for event in of(ObjectRejected, published)] == ["nifti-not-a-volume"]
    (event,) = await ingest.completed()
    assert event.instances == 1
    assert event.series_instance_uid.startswith("2.25.")
    assert (await ingest.manifest(event)).kind == "nifti"
