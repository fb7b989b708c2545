"""How far a stage and a job are, in percent.

A stage tells the step that it is at and, of some steps, how much of it is done. What share of the stage a step is
stands in a table here, from the times of a chest CT; a bar that is made of it never goes back, and is about right. A
step that the table does not know says nothing of the stage.

A job's percent is that of its stages, each by how long it usually takes. A stage that has settled counts whole, however
it ended: nothing more is done for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from voxelmill_shared.catalog import JobStatus, StageOutcome
from voxelmill_shared.events import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxelmill_shared.catalog import JobView, ProgressView

WEIGHTS: Final[Mapping[Stage, int]] = {
    Stage.INGEST: 5,
    Stage.THUMBNAIL: 10,
    Stage.SEGMENT: 50,
    Stage.MESH: 30,
    Stage.INDEX: 5,
}
"""What share of a job each stage is."""

STEPS: Final[Mapping[Stage, Mapping[str, tuple[int, int]]]] = {
    Stage.THUMBNAIL: {
        # A NIfTI file is decoded at once, of DICOM each instance is drawn.
        "headers": (0, 2),
        "pictures": (2, 88),
        "decode": (0, 90),
        "planes": (90, 10),
    },
    Stage.SEGMENT: {
        "read": (0, 10),
        "upright": (10, 2),
        # The model `threshold`.
        "orient": (12, 1),
        "body": (13, 11),
        "airways": (24, 7),
        "lungs": (31, 3),
        "bones": (34, 12),
        "tissue": (46, 9),
        "refine": (55, 27),
        # TotalSegmentator, in the same place.
        "load": (12, 5),
        "resample": (17, 5),
        "predict": (22, 55),
        "restore": (77, 5),
        "hand over": (82, 1),
        "statistics": (83, 5),
        "write": (88, 1),
        "dicom-seg": (89, 11),
    },
    Stage.MESH: {
        "read": (0, 4),
        "extract": (4, 2),
        "smooth": (6, 5),
        "decimate": (11, 46),
        "surfaces": (57, 3),
        "measure": (60, 5),
        "write": (65, 17),
        "preview": (82, 18),
    },
}
"""Where each step of a stage begins, and what share of the stage it is, in percent."""


def stage_percent(progress: ProgressView) -> int | None:
    """Return how much of a stage at work is done; none if its step is unknown here."""
    place = STEPS.get(progress.stage, {}).get(progress.step)
    if place is None:
        return None
    begins, share = place
    return min(99, int(begins + share * (progress.percent or 0) / 100))


def percents(job: JobView, progress: Mapping[Stage, ProgressView]) -> dict[Stage, int | None]:
    """Return how much of each stage is done; none of one that has not begun, or does not say."""
    found: dict[Stage, int | None] = {}
    for view in job.stages:
        if view.outcome is not StageOutcome.PENDING:
            found[view.stage] = 100
        else:
            told = progress.get(view.stage)
            found[view.stage] = stage_percent(told) if told else None
    return found


def job_percent(job: JobView, progress: Mapping[Stage, ProgressView]) -> int:
    """Return how much of a job is done; 100 only when every stage has settled."""
    if job.status is not JobStatus.PROCESSING:
        return 100
    done = sum(WEIGHTS[stage] * (percent or 0) for stage, percent in percents(job, progress).items())
    return min(99, done // sum(WEIGHTS.values()))
