"""The receipt of a job, made from what is known of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from voxelmill_index.completion import EXPECTED, StageState
from voxelmill_index.receipt import JobState, make_receipt
from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.events import DocumentRef, ObjectKind, ObjectRef, Stage, Status
from voxelmill_shared.plan import Organ, Plan
from voxelmill_shared.results import Artefact, ManifestInstance, Receipt, ResultKeys, SeriesManifest, StageRecord
from voxelmill_shared.version import __version__

START = datetime(2026, 1, 2, tzinfo=UTC)
KEYS = ResultKeys("1.2.3", 2, "job")
MANIFEST = SeriesManifest(
    study_instance_uid="1.2",
    series_instance_uid="1.2.3",
    revision=2,
    job_id="job",
    modality="CT",
    kind=ObjectKind.DICOM,
    plan=Plan(organ=Organ.LUNGS),
    instances=(
        ManifestInstance(object=ObjectRef(bucket="b", key="2", etag="e2", size=2), sop_instance_uid="1.2.3.2"),
        ManifestInstance(object=ObjectRef(bucket="b", key="1", etag="e1", size=1), sop_instance_uid="1.2.3.1"),
    ),
)


def record(stage: Stage, *names: str) -> StageRecord:
    return StageRecord(
        stage=stage,
        service_version="7",
        started=START,
        finished=START + timedelta(seconds=2),
        seconds={"domain": 2.0},
        artefacts=tuple(Artefact(name=name, media_type="x/y", size=1, sha256="0" * 64) for name in names),
        measurements={"transform": [1, 0]},
        warnings=("odd",),
    )


def job(told: dict[Stage, StageState], *records: StageRecord) -> JobState:
    return JobState(
        keys=KEYS,
        study_instance_uid="1.2",
        manifest=DocumentRef(key=KEYS.manifest, sha256="0" * 64),
        trace_id="ab" * 16,
        told=told,
        records={record.stage: record for record in records},
        written=None,
    )


def test_receipt_says_what_a_job_was_made_from_by_what_and_what_came_out() -> None:
    """Inputs and plan are the manifest's, in its order; stages and versions the records'; warnings are of both."""
    done = StageState(StageOutcome.DONE)
    records = (record(Stage.MESH, "meshes/b.stl", "meshes/a.stl"), record(Stage.THUMBNAIL, "preview.webp"))
    told = {Stage.THUMBNAIL: done, Stage.SEGMENT: StageState(StageOutcome.FAILED, "hung"), Stage.MESH: done}
    manifest = MANIFEST.model_copy(update={"warnings": ("missing-rescale: Rescale Slope is absent",)})
    receipt = make_receipt(job(told, *records), manifest, Status.PARTIAL)

    assert receipt.inputs == MANIFEST.instances
    assert receipt.plan.organ is Organ.LUNGS
    assert (receipt.revision, receipt.modality, receipt.status) == (2, "CT", Status.PARTIAL)
    assert tuple(receipt.stages) == EXPECTED
    assert receipt.stages[Stage.MESH].measurements == {"transform": [1, 0]}
    assert receipt.stages[Stage.MESH].finished == START + timedelta(seconds=2)
    assert (receipt.stages[Stage.SEGMENT].outcome, receipt.stages[Stage.SEGMENT].reason) == ("failed", "hung")
    assert [artefact.name for artefact in receipt.artefacts] == ["meshes/a.stl", "meshes/b.stl", "preview.webp"]
    assert receipt.warnings == ("ingest: missing-rescale: Rescale Slope is absent", "thumbnail: odd", "mesh: odd")
    assert receipt.versions == {"index": __version__, "thumbnail": "7", "mesh": "7"}


def test_the_same_knowledge_gives_the_same_bytes() -> None:
    """Whatever the order in which the stages settled; and it reads back."""
    done = StageState(StageOutcome.DONE)
    records = [record(stage, f"{stage}/file") for stage in EXPECTED]
    one = make_receipt(job(dict.fromkeys(EXPECTED, done), *records), MANIFEST, Status.COMPLETE)
    other = make_receipt(job(dict.fromkeys(reversed(EXPECTED), done), *records[::-1]), MANIFEST, Status.COMPLETE)
    assert one.to_json() == other.to_json()
    assert Receipt.model_validate_json(one.to_json()) == one


def test_what_follows_from_a_stage_is_in_the_receipt() -> None:
    """A mesh that never had anything to work on is skipped with the reason."""
    told = {Stage.THUMBNAIL: StageState(StageOutcome.DONE), Stage.SEGMENT: StageState(StageOutcome.SKIPPED, "an MR")}
    receipt = make_receipt(job(told, record(Stage.THUMBNAIL)), MANIFEST, Status.COMPLETE)
    assert receipt.stages[Stage.MESH].outcome == "skipped"
    assert receipt.stages[Stage.MESH].reason == "segment was skipped: an MR"
    assert receipt.stages[Stage.MESH].started is None
