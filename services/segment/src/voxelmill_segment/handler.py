"""series.validated → series.segmented, or stage.skipped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from voxelmill_segment.segmenter import ModelRefusedError
from voxelmill_segment.task import SegmentTask
from voxelmill_segment.totalsegmentator.tasks import UnfitPlanError
from voxelmill_shared.events import SeriesSegmented, SeriesValidated, Stage, StageSkipped
from voxelmill_shared.outcome import Done, Outcome, Reject
from voxelmill_shared.progress import current
from voxelmill_shared.results import ResultKeys, SeriesManifest
from voxelmill_shared.stage import StageResults, read_document
from voxelmill_shared.work import NotApplicableError, UnsupportedSeriesError

if TYPE_CHECKING:
    from voxelmill_segment.pipeline import Pipeline
    from voxelmill_shared.events import DocumentRef
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.results import StageRecord

NO_VOLUME = frozenset({"too-few-slices", "colour-images", "no-geometry", "derived-object"})
"""Codes of the imaging catalogue for series that are sound and were never meant to be a volume: a single image, a
secondary capture. What is meant to be one and is broken (missing slices, mixed orientations) is rejected instead."""


@dataclass(frozen=True, slots=True)
class SegmentSeries:
    """Turn one series revision into a label map."""

    results: StageResults
    pipeline: Pipeline
    scratch: Scratch

    async def __call__(self, event: SeriesValidated) -> Outcome:
        """Do the work unless its record stands, and say that it is done."""
        keys = ResultKeys.of(event)
        about = event.model_dump(include={"study_instance_uid", "series_instance_uid", "revision", "job_id"})
        try:
            # Redelivered: the work is done, its event may not be.
            reference, record = await self.results.once(keys, lambda: self.work(event, keys))
        except NotApplicableError as error:
            return Done((StageSkipped(**about, stage=Stage.SEGMENT, reason=str(error)),))
        except UnsupportedSeriesError as error:
            if error.code in NO_VOLUME:
                return Done((StageSkipped(**about, stage=Stage.SEGMENT, reason=error.reason),))
            return Reject(error.reason, error.code)
        except (UnfitPlanError, ModelRefusedError) as error:
            return Reject(str(error), error.error_class)
        quality = record.measurements.get("quality", ())
        artefacts = len(record.artefacts)
        return Done(
            (SeriesSegmented(**about, record=reference, artefacts=artefacts, plan=event.plan, quality=quality),)
        )

    async def work(self, event: SeriesValidated, keys: ResultKeys) -> tuple[DocumentRef, StageRecord]:
        """Fetch the instances, segment them in child processes, keep what comes out."""
        started = datetime.now(UTC)
        manifest = await read_document(self.results.stores.results, event.manifest, SeriesManifest)
        await self.pipeline.admit(event.plan, manifest.kind, manifest.modality)
        with self.scratch.folder(Stage.SEGMENT) as folder:
            paths = await self.results.inputs(manifest, folder / "in")
            task = SegmentTask(
                paths=tuple(paths),
                kind=manifest.kind,
                modality=manifest.modality,
                plan=event.plan,
                output=folder / "out",
                study_instance_uid=manifest.study_instance_uid,
                series_instance_uid=manifest.series_instance_uid,
                sop_instance_uids=tuple(instance.sop_instance_uid for instance in manifest.instances),
                sop_class_uids=tuple(instance.sop_class_uid for instance in manifest.instances),
            )
            work, seconds = await self.pipeline.segment(task, current())
            return await self.results.write(keys, work, started, datetime.now(UTC), seconds)
