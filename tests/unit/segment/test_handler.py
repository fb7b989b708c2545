"""The handler, with real stores and a real child."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydicom

from voxelmill_segment.handler import SegmentSeries
from voxelmill_segment.pipeline import Pipeline
from voxelmill_segment.work import DICOM_SEG
from voxelmill_shared.child import ChildPool, Limits
from voxelmill_shared.events import (
    DocumentRef,
    Evidence,
    ObjectKind,
    ObjectRef,
    SeriesSegmented,
    SeriesValidated,
    Stage,
)
from voxelmill_shared.outcome import Done
from voxelmill_shared.parts import Scratch
from voxelmill_shared.plan import Organ, Plan
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest
from voxelmill_shared.stage import StageResults
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path


async def validated(
    stores: Stores, paths: list[Path], plan: Plan | None = None
) -> tuple[SeriesValidated, SeriesManifest]:
    """Put a series into the inbox and its manifest into the results; its UIDs are not those in the files."""
    instances = []
    for number, path in enumerate(paths):
        stored = await stores.inbox.write_file(f"ct/{path.name}", path, "application/dicom")
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        instances.append(ManifestInstance(object=reference, sop_instance_uid=f"2.25.30{number}"))
    keys = ResultKeys("2.25.2", 1, "job")
    manifest = SeriesManifest(
        study_instance_uid="2.25.1",
        series_instance_uid=keys.series_instance_uid,
        revision=keys.revision,
        job_id=keys.job_id,
        modality="CT",
        kind=ObjectKind.DICOM,
        plan=plan or Plan(),
        instances=tuple(instances),
    )
    stored = await stores.results.write(keys.manifest, manifest.to_json(), "application/json")
    event = SeriesValidated(
        study_instance_uid=manifest.study_instance_uid,
        series_instance_uid=manifest.series_instance_uid,
        revision=1,
        job_id="job",
        modality="CT",
        instances=len(instances),
        manifest=DocumentRef(key=stored.key, sha256=stored.sha256),
        plan=manifest.plan,
        evidence=Evidence.UPLOAD,
    )
    return event, manifest


async def test_the_segmentation_refers_to_what_the_manifest_names(tmp_path: Path, data: Path) -> None:
    """The files' own UIDs are blank; the catalog has those that ingest made, and so has the DICOM SEG."""
    inbox, work, results = [LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")]
    stores = Stores(inbox, work, results)
    event, manifest = await validated(stores, sorted((data / "totalseg_ct_dicom_20").iterdir()))
    children = ChildPool("voxelmill_segment.work:act", Limits(8 << 30, 200), 1)
    async with Pipeline(children, children) as pipeline:
        handler = SegmentSeries(StageResults(stores, Stage.SEGMENT), pipeline, Scratch(tmp_path / "scratch"))
        outcome = await handler(event)
    assert isinstance(outcome, Done)
    assert [type(event) for event in outcome.events] == [SeriesSegmented]
    seg = pydicom.dcmread(await results.fetch(ResultKeys.of(event).artefact(DICOM_SEG), tmp_path / "out"))
    (series,) = seg.ReferencedSeriesSequence
    assert seg.StudyInstanceUID == manifest.study_instance_uid
    assert series.SeriesInstanceUID == manifest.series_instance_uid
    references = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert sorted(references) == sorted(instance.sop_instance_uid for instance in manifest.instances)
    assert len(set(references)) == 20


async def test_the_event_says_what_somebody_should_look_at(tmp_path: Path, data: Path) -> None:
    """The lungs of an abdomen: nothing is found, nothing fails, and the event tells, also when it is published again."""
    inbox, work, results = [LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")]
    stores = Stores(inbox, work, results)
    paths = sorted((data / "totalseg_ct_dicom_20").iterdir())
    event, _ = await validated(stores, paths, Plan(organ=Organ.LUNGS))
    children = ChildPool("voxelmill_segment.work:act", Limits(8 << 30, 200), 1)
    async with Pipeline(children, children) as pipeline:
        handler = SegmentSeries(StageResults(stores, Stage.SEGMENT), pipeline, Scratch(tmp_path / "scratch"))
        first, again = await handler(event), await handler(event)
    assert isinstance(first, Done)
    assert first == again
    (told,) = first.events
    assert isinstance(told, SeriesSegmented)
    assert [(flag.code, flag.segments) for flag in told.quality] == [("nothing-found", ("lung_left", "lung_right"))]
