"""The handler, with real stores and a real child."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from unit.mesh.test_work import SEGMENTS, labels, write_nifti
from voxelmill_mesh.handler import MeshSeries
from voxelmill_shared.child import ChildPool, Limits
from voxelmill_shared.errors import TransientError
from voxelmill_shared.events import DocumentRef, SeriesMeshed, SeriesSegmented, Stage
from voxelmill_shared.outcome import Done, Reject
from voxelmill_shared.parts import Scratch
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import Artefact, ResultKeys, StageRecord
from voxelmill_shared.stage import StageResults
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEYS = ResultKeys("2.25.2", 1, "job")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(*(LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")))


@pytest.fixture
async def handler(tmp_path: Path, stores: Stores) -> AsyncIterator[MeshSeries]:
    async with ChildPool("voxelmill_mesh.work:mesh_labels", Limits(8 << 30, 200), 1) as children:
        yield MeshSeries(StageResults(stores, Stage.MESH), children, Scratch(tmp_path / "scratch"))


async def segmented(
    stores: Stores, folder: Path, seconds: float = 1.0, segments: dict[str, Any] | None = None
) -> SeriesSegmented:
    """Write what segment writes; its record holds the time that the work took, so no two are the same."""
    path = write_nifti(labels(), folder / "labelmap.nii.gz")
    written = await stores.results.write_file(KEYS.label_map, path, "application/gzip")
    name = KEYS.label_map.removeprefix(f"{KEYS.prefix}/")
    artefact = Artefact(name=name, media_type="application/gzip", size=written.size, sha256=written.sha256)
    record = StageRecord(
        stage=Stage.SEGMENT,
        service_version="1",
        started=NOW,
        finished=NOW,
        seconds={"domain": seconds},
        artefacts=(artefact,),
        measurements={"segments": list(SEGMENTS)} if segments is None else segments,
    )
    stored = await stores.results.write(KEYS.stage_record(Stage.SEGMENT), record.to_json(), "application/json")
    return event_about(DocumentRef(key=stored.key, sha256=stored.sha256))


def event_about(record: DocumentRef) -> SeriesSegmented:
    return SeriesSegmented(
        study_instance_uid="2.25.1",
        series_instance_uid=KEYS.series_instance_uid,
        revision=KEYS.revision,
        job_id=KEYS.job_id,
        record=record,
        artefacts=1,
        plan=Plan(),
    )


async def test_a_record_that_another_worker_wrote_again_is_as_good(
    handler: MeshSeries, stores: Stores, tmp_path: Path
) -> None:
    """Two segment workers did the same job: the first one's event names a record that is no more; the results stand."""
    first = await segmented(stores, tmp_path, seconds=1.0)
    second = await segmented(stores, tmp_path, seconds=2.0)
    assert first.record != second.record
    outcome = await handler(first)
    assert isinstance(outcome, Done)
    (meshed,) = outcome.events
    assert isinstance(meshed, SeriesMeshed)
    assert await handler(second) == outcome
    assert await stores.results.exists(KEYS.artefact("meshes/lung_left.stl"))


async def test_a_record_that_is_none_is_tried_again(handler: MeshSeries, stores: Stores, tmp_path: Path) -> None:
    """A later segment worker may write it anew; only the ladder's end makes a dead letter of it."""
    event = await segmented(stores, tmp_path)
    await stores.results.write(event.record.key, b"{}", "application/json")
    with pytest.raises(TransientError) as raised:
        await handler(event)
    assert raised.value.error_class == "document-changed"


async def test_a_segmentation_that_was_deleted_is_rejected(handler: MeshSeries, stores: Stores, tmp_path: Path) -> None:
    """Nothing brings it back but segment."""
    event = await segmented(stores, tmp_path)
    await stores.results.delete(event.record.key)
    outcome = await handler(event)
    assert isinstance(outcome, Reject)
    assert outcome.error_class == "input-gone"


async def test_a_label_map_that_the_record_does_not_name_is_tried_again(
    handler: MeshSeries, stores: Stores, tmp_path: Path
) -> None:
    """A second segment worker may have written it and not yet its record: nothing is meshed that no record names."""
    event = await segmented(stores, tmp_path)
    other = write_nifti(labels()[::-1].copy(), tmp_path / "other.nii.gz")
    await stores.results.write_file(KEYS.label_map, other, "application/gzip")
    with pytest.raises(TransientError) as raised:
        await handler(event)
    assert raised.value.error_class == "document-changed"
    assert KEYS.label_map in str(raised.value)
    assert not await stores.results.exists(KEYS.stage_record(Stage.MESH))


@pytest.mark.parametrize("segments", [{}, {"segments": "lungs"}], ids=["none", "a word"])
async def test_a_record_without_segments_is_rejected(
    handler: MeshSeries, stores: Stores, tmp_path: Path, segments: dict[str, Any]
) -> None:
    """Trying again would change nothing."""
    outcome = await handler(await segmented(stores, tmp_path, segments=segments))
    assert isinstance(outcome, Reject)
    assert outcome.error_class == "segments-invalid"
