"""The inputs of a stage are those that were validated, also when its work is done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared.events import ObjectKind, ObjectRef, Stage
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest
from voxelmill_shared.stage import StageResults
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.work import UnsupportedSeriesError, WorkResult

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ResultKeys("1.2.3", 1, "job")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(*(LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")))


@pytest.fixture
async def manifest(stores: Stores) -> SeriesManifest:
    """Give the manifest of a series of one instance, written down."""
    stored = await stores.inbox.write("a.dcm", b"validated")
    reference = ObjectRef(bucket="inbox", key="a.dcm", etag=stored.etag, size=stored.size)
    manifest = SeriesManifest(
        study_instance_uid="1.2",
        series_instance_uid=KEYS.series_instance_uid,
        revision=KEYS.revision,
        job_id=KEYS.job_id,
        modality="CT",
        kind=ObjectKind.DICOM,
        plan=Plan(),
        instances=(ManifestInstance(object=reference, sop_instance_uid="1.2.3.4"),),
    )
    await stores.results.write(KEYS.manifest, manifest.to_json())
    return manifest


async def test_inputs_that_were_replaced_or_deleted_are_refused(
    stores: Stores, manifest: SeriesManifest, tmp_path: Path
) -> None:
    results = StageResults(stores, Stage.SEGMENT)
    (path,) = await results.inputs(manifest, tmp_path / "in")
    assert path.read_bytes() == b"validated"
    await stores.inbox.write("a.dcm", b"another")
    with pytest.raises(UnsupportedSeriesError, match="replaced") as refused:
        await results.inputs(manifest, tmp_path / "in")
    assert refused.value.code == "input-changed"
    await stores.inbox.delete("a.dcm")
    with pytest.raises(UnsupportedSeriesError, match="deleted") as refused:
        await results.inputs(manifest, tmp_path / "in")
    assert refused.value.code == "input-gone"


@pytest.mark.parametrize("stage", [Stage.THUMBNAIL, Stage.SEGMENT])
async def test_an_input_that_changes_during_the_work_leaves_no_record(
    stores: Stores, manifest: SeriesManifest, tmp_path: Path, stage: Stage
) -> None:
    """The child reads the user's own file: its result may not stand under the name of what was there before."""
    results = StageResults(stores, stage)
    await results.inputs(manifest, tmp_path / "in")
    await stores.inbox.write("a.dcm", b"another")
    with pytest.raises(UnsupportedSeriesError) as refused:
        await results.write(KEYS, WorkResult(()), NOW, NOW, 1.0)
    assert refused.value.code == "input-changed"
    assert await results.standing(KEYS) is None


@pytest.mark.parametrize("stage", [Stage.THUMBNAIL, Stage.SEGMENT])
async def test_a_record_stands_when_the_inputs_do(stores: Stores, manifest: SeriesManifest, stage: Stage) -> None:
    results = StageResults(stores, stage)
    assert manifest.job_id == KEYS.job_id
    written = await results.write(KEYS, WorkResult(()), NOW, NOW, 1.0)
    assert await results.standing(KEYS) == written


async def test_meshing_reads_a_label_map_and_asks_for_no_instances(stores: Stores, manifest: SeriesManifest) -> None:
    """An instance that is deleted after it was segmented takes no mesh away."""
    await stores.inbox.delete(manifest.instances[0].object.key)
    results = StageResults(stores, Stage.MESH)
    written = await results.write(KEYS, WorkResult(()), NOW, NOW, 1.0)
    assert await results.standing(KEYS) == written
