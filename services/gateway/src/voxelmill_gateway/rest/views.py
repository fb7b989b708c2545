"""From the catalog's views to the answers of the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_gateway.rest.links import archive_url, file_url, job_url, preview_url, receipt_url, volume_url
from voxelmill_gateway.rest.models import ArtefactOut, JobBrief, JobOut, SeriesOut, StageBrief, StageOut
from voxelmill_gateway.rest.percent import job_percent, percents
from voxelmill_shared.catalog import StageOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxelmill_gateway.rest.models import SegmentOut
    from voxelmill_shared.catalog import ArtefactView, FoundSeries, JobView, ProgressView, StageView
    from voxelmill_shared.events import Stage

    Told = Mapping[Stage, ProgressView]


def job_brief(job: JobView, told: Told) -> JobBrief:
    """Return where a job is."""
    percent = percents(job, told)
    return JobBrief(
        job_id=job.job_id,
        revision=job.revision,
        status=job.status,
        superseded=job.superseded,
        percent=job_percent(job, told),
        stages=[
            StageBrief(stage=view.stage, outcome=view.outcome, percent=percent[view.stage], step=_step(view, told))
            for view in job.stages
        ],
        url=job_url(job.job_id),
    )


def job_answer(job: JobView, told: Told, artefacts: Sequence[ArtefactView], segments: Sequence[SegmentOut]) -> JobOut:
    """Return everything about a job."""
    percent = percents(job, told)
    return JobOut(
        job_id=job.job_id,
        series_instance_uid=job.keys.series_instance_uid,
        study_instance_uid=job.study_instance_uid,
        revision=job.revision,
        status=job.status,
        superseded=job.superseded,
        percent=job_percent(job, told),
        modality=job.modality,
        instances=job.instances,
        evidence=job.evidence,
        plan=dict(job.plan) if job.plan is not None else None,
        validated_at=job.validated_at,
        indexed_at=job.indexed_at,
        trace_id=job.trace_id,
        stages=[_stage(view, percent[view.stage], _step(view, told)) for view in job.stages],
        artefacts=[artefact_answer(job.job_id, artefact) for artefact in artefacts],
        segments=list(segments),
        archive_url=archive_url(job),
        volume_url=volume_url(job),
        preview_url=preview_url(job),
        receipt_url=receipt_url(job),
    )


def artefact_answer(job_id: str, artefact: ArtefactView) -> ArtefactOut:
    """Return one result file."""
    return ArtefactOut(
        name=artefact.name,
        stage=artefact.stage,
        media_type=artefact.media_type,
        size=artefact.size,
        sha256=artefact.sha256,
        url=file_url(job_id, artefact.name),
    )


def series_answer(found: FoundSeries, told: Told) -> SeriesOut:
    """Return one series with its current job."""
    job = found.job
    return SeriesOut(
        series_instance_uid=found.series_instance_uid,
        study_instance_uid=found.study_instance_uid,
        project=found.project,
        modality=found.modality,
        patient_name=found.patient_name,
        patient_id=found.patient_id,
        patient_birth_date=found.patient_birth_date,
        patient_sex=found.patient_sex,
        accession_number=found.accession_number,
        study_date=found.study_date,
        study_time=found.study_time,
        study_description=found.study_description,
        series_number=found.series_number,
        series_description=found.series_description,
        body_part_examined=found.body_part_examined,
        instances=found.view.instances,
        revisions=found.view.revisions,
        first_seen=found.view.first_seen,
        derived_from_job=found.derived_from_job,
        preview_url=preview_url(job) if job else None,
        job=job_brief(job, told) if job else None,
    )


def _step(view: StageView, told: Told) -> str:
    """Return what a stage is doing; what it has said last means nothing once it has ended."""
    return told[view.stage].step if view.outcome is StageOutcome.PENDING and view.stage in told else ""


def _stage(view: StageView, percent: int | None, step: str) -> StageOut:
    return StageOut(
        stage=view.stage,
        outcome=view.outcome,
        percent=percent,
        step=step,
        reason=view.reason,
        error_class=view.error_class,
        attempts=view.attempts,
        replays=view.replays,
        seconds=view.elapsed,
        seconds_by_step=dict(view.seconds or {}),
        started=view.started,
        finished=view.finished,
        service_version=view.service_version,
        warnings=list(view.warnings),
    )
