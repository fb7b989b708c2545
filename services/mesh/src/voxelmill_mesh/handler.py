"""series.segmented → series.meshed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from voxelmill_mesh.task import MeshTask
from voxelmill_shared.errors import ObjectMissingError, TransientError
from voxelmill_shared.events import SeriesMeshed, SeriesSegmented, Stage
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.progress import current
from voxelmill_shared.results import ResultKeys, StageRecord
from voxelmill_shared.stage import StageResults, read_document
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from voxelmill_shared.child import ChildPool
    from voxelmill_shared.events import DocumentRef
    from voxelmill_shared.parts import Scratch

log = structlog.get_logger("voxelmill")


class RecordChangedError(TransientError):
    """Segment's record is not the one that the event names, and is none that can be read."""

    error_class = "document-changed"


class LabelMapChangedError(TransientError):
    """The label map is not the one that segment's record names: another worker may be about to write its record."""

    error_class = "document-changed"


@dataclass(frozen=True, slots=True)
class MeshSeries:
    """Turn the label map of one series revision into surfaces."""

    results: StageResults
    children: ChildPool
    scratch: Scratch

    async def __call__(self, event: SeriesSegmented) -> Outcome:
        """Do the work unless its record stands, and say that it is done."""
        keys = ResultKeys.of(event)
        try:
            # Redelivered: the work is done, its event may not be.
            reference, record = await self.results.once(keys, lambda: self.work(event, keys))
        except UnsupportedSeriesError as error:
            return Reject(error.reason, error.code)
        except ObjectMissingError as error:
            return Reject(f"{error}; the segmentation's results were deleted", "input-gone")
        return Done(
            (
                SeriesMeshed(
                    **event.model_dump(include={"study_instance_uid", "series_instance_uid", "revision", "job_id"}),
                    record=reference,
                    artefacts=len(record.artefacts),
                    plan=event.plan,
                ),
            )
        )

    async def work(self, event: SeriesSegmented, keys: ResultKeys) -> tuple[DocumentRef, StageRecord]:
        """Fetch the label map, mesh it in a child process, keep the meshes."""
        started = datetime.now(UTC)
        store = self.results.stores.results
        segmented = await self.segmented(event, keys)
        with self.scratch.folder(Stage.MESH) as folder:
            label_map = await store.fetch(keys.label_map, folder / "in")
            await asyncio.to_thread(_check, label_map, segmented, keys)
            task = MeshTask(
                label_map=label_map,
                segments=_segments(segmented),
                plan=event.plan,
                output=folder / "out",
            )
            clock = time.monotonic()
            work = await self.children.call(task, current())
            seconds = time.monotonic() - clock
            return await self.results.write(keys, work, started, datetime.now(UTC), seconds)

    async def segmented(self, event: SeriesSegmented, keys: ResultKeys) -> StageRecord:
        """Read segment's record: the one that the event names, else the one that stands in its place.

        Two workers can do the same work, when one is slow to notice that it was given up. Each writes the record and
        says so, and only the record that was written last can be read. What both have made is the same.
        """
        try:
            return await read_document(self.results.stores.results, event.record, StageRecord)
        except UnsupportedSeriesError as error:
            standing = await StageResults(self.results.stores, Stage.SEGMENT).standing(keys)
            if standing is None:
                raise RecordChangedError(error.reason) from error
            reference, record = standing
            log.info("segment's record was written again, going on with it", key=reference.key, sha256=reference.sha256)
            return record


def _check(label_map: Path, segmented: StageRecord, keys: ResultKeys) -> None:
    """Compare a label map with the digest that segment's record has of it."""
    digests = {keys.artefact(artefact.name): artefact.sha256 for artefact in segmented.artefacts}
    if keys.label_map not in digests:
        raise UnsupportedSeriesError("label-map-unreadable", f"{keys.label_map}: segment's record does not name it")
    with label_map.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digests[keys.label_map]:
            raise LabelMapChangedError(f"{keys.label_map}: its digest is not the one in segment's record")


def _segments(segmented: StageRecord) -> tuple[dict[str, Any], ...]:
    """Return the segments that segment's record describes; the child looks at each of them."""
    segments = segmented.measurements.get("segments")
    if not isinstance(segments, list):
        raise UnsupportedSeriesError("segments-invalid", "segment's record has no list of segments")
    return tuple(segments)
