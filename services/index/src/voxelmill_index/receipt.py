"""The receipt of a job, from what the catalog knows of it: the same knowledge gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_index.completion import EXPECTED, Completion, StageState
from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.events import DocumentRef, Stage, Status
from voxelmill_shared.results import Artefact, Receipt, ResultKeys, SeriesManifest, StageRecord, StageSummary
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class JobState:
    """All that the catalog knows of a job whose series was validated.

    `told` is how stages ended, without what only follows from it; `records` are those of the stages that are done.
    `written` is the receipt that the catalog holds to be written, none before the first.
    """

    keys: ResultKeys
    study_instance_uid: str
    manifest: DocumentRef
    trace_id: str
    told: Mapping[Stage, StageState]
    records: Mapping[Stage, StageRecord]
    written: DocumentRef | None

    @property
    def completion(self) -> Completion:
        """The decision about this job."""
        return Completion(self.told)

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """The result files of all stages, by name."""
        files = (artefact for record in self.records.values() for artefact in record.artefacts)
        return tuple(sorted(files, key=lambda artefact: artefact.name))


def make_receipt(job: JobState, manifest: SeriesManifest, status: Status) -> Receipt:
    """Say what a settled job was made from, by what, and what came out."""
    done = [stage for stage in EXPECTED if stage in job.records]
    return Receipt(
        job_id=job.keys.job_id,
        study_instance_uid=job.study_instance_uid,
        series_instance_uid=job.keys.series_instance_uid,
        revision=job.keys.revision,
        modality=manifest.modality,
        status=status,
        plan=manifest.plan,
        inputs=manifest.instances,
        stages={stage: _summary(state, job.records.get(stage)) for stage, state in job.completion.stages.items()},
        artefacts=job.artefacts,
        warnings=(
            *(f"{Stage.INGEST}: {warning}" for warning in manifest.warnings),
            *(f"{stage}: {warning}" for stage in done for warning in job.records[stage].warnings),
        ),
        versions={
            Stage.INDEX.value: __version__,
            **{stage.value: job.records[stage].service_version for stage in done},
        },
        trace_id=job.trace_id,
    )


def _summary(state: StageState, record: StageRecord | None) -> StageSummary:
    if state.outcome is not StageOutcome.DONE or record is None:
        return StageSummary(outcome=state.outcome.value, reason=state.reason)
    return StageSummary(
        outcome=state.outcome.value,
        service_version=record.service_version,
        started=record.started,
        finished=record.finished,
        seconds=record.seconds,
        measurements=record.measurements,
    )
