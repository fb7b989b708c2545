"""series.validated → series.thumbnailed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from voxelmill_shared.events import SeriesThumbnailed, SeriesValidated, Stage
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.results import ResultKeys, SeriesManifest
from voxelmill_shared.stage import StageResults, read_document
from voxelmill_shared.work import UnsupportedSeriesError
from voxelmill_thumbnail.task import ThumbnailTask

if TYPE_CHECKING:
    from voxelmill_shared.child import ChildPool
    from voxelmill_shared.events import DocumentRef
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.results import StageRecord


@dataclass(frozen=True, slots=True)
class ThumbnailSeries:
    """Make the pictures of one series revision."""

    results: StageResults
    children: ChildPool
    scratch: Scratch

    async def __call__(self, event: SeriesValidated) -> Outcome:
        """Do the work unless its record stands, and say that it is done."""
        keys = ResultKeys.of(event)
        try:
            # Redelivered: the work is done, its event may not be.
            reference, record = await self.results.once(keys, lambda: self.work(event, keys))
        except UnsupportedSeriesError as error:
            return Reject(error.reason, error.code)
        return Done(
            (
                SeriesThumbnailed(
                    **event.model_dump(include={"study_instance_uid", "series_instance_uid", "revision", "job_id"}),
                    record=reference,
                    artefacts=len(record.artefacts),
                    plan=event.plan,
                ),
            )
        )

    async def work(self, event: SeriesValidated, keys: ResultKeys) -> tuple[DocumentRef, StageRecord]:
        """Fetch the instances, draw them in a child process, keep the pictures."""
        started = datetime.now(UTC)
        manifest = await read_document(self.results.stores.results, event.manifest, SeriesManifest)
        with self.scratch.folder(Stage.THUMBNAIL) as folder:
            paths = await self.results.inputs(manifest, folder / "in")
            task = ThumbnailTask(
                paths=tuple(paths), kind=manifest.kind, modality=manifest.modality, output=folder / "out"
            )
            clock = time.monotonic()
            work = await self.children.call(task)
            seconds = time.monotonic() - clock
            return await self.results.write(keys, work, started, datetime.now(UTC), seconds)
