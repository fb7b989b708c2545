"""When a job is settled, and how."""

from __future__ import annotations

import itertools

import pytest

from voxelmill_index.completion import EXPECTED, Completion, StageState
from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.events import Stage, Status

DONE = StageState(StageOutcome.DONE)
SKIPPED = StageState(StageOutcome.SKIPPED, "not a CT")
FAILED = StageState(StageOutcome.FAILED, "out of memory")


@pytest.mark.parametrize("missing", EXPECTED)
def test_a_job_is_not_settled_while_a_stage_is_missing(missing: Stage) -> None:
    """All the others done: the job waits for the one."""
    completion = Completion({stage: DONE for stage in EXPECTED if stage is not missing})
    assert completion.status is None
    assert completion.which(StageOutcome.PENDING) == (missing,)


def test_nothing_is_known_of_a_new_job() -> None:
    """Every stage is pending."""
    assert Completion({}).which(StageOutcome.PENDING) == EXPECTED


@pytest.mark.parametrize("states", list(itertools.product((DONE, SKIPPED, FAILED), repeat=len(EXPECTED))))
def test_a_job_is_partial_if_and_only_if_a_stage_failed(states: tuple[StageState, ...]) -> None:
    """A skipped stage takes nothing from completeness."""
    completion = Completion(dict(zip(EXPECTED, states, strict=True)))
    assert completion.status is (Status.PARTIAL if FAILED in states else Status.COMPLETE)
    assert not completion.implied


@pytest.mark.parametrize(
    ("segment", "status", "reason"),
    [
        (SKIPPED, Status.COMPLETE, "segment was skipped: not a CT"),
        (FAILED, Status.PARTIAL, "segment failed: out of memory"),
    ],
    ids=["skipped", "failed"],
)
def test_without_a_segmentation_the_mesh_is_skipped(segment: StageState, status: Status, reason: str) -> None:
    """Nobody tells of the mesh then, so it follows from the segmentation, with its reason."""
    completion = Completion({Stage.THUMBNAIL: DONE, Stage.SEGMENT: segment})
    assert completion.implied == {Stage.MESH: StageState(StageOutcome.SKIPPED, reason)}
    assert completion.status is status


def test_what_follows_does_not_wait_for_the_other_stages() -> None:
    """The mesh shows as skipped while the thumbnails are still being made."""
    completion = Completion({Stage.SEGMENT: FAILED})
    assert completion.stages[Stage.MESH].outcome is StageOutcome.SKIPPED
    assert completion.which(StageOutcome.PENDING) == (Stage.THUMBNAIL,)


def test_what_was_told_counts_more_than_what_follows() -> None:
    """A mesh from an earlier attempt stands although the segmentation is reported as failed."""
    completion = Completion({Stage.THUMBNAIL: DONE, Stage.SEGMENT: FAILED, Stage.MESH: DONE})
    assert completion.stages[Stage.MESH] == DONE


def test_stages_stand_in_their_order() -> None:
    """Whatever arrived first."""
    completion = Completion({Stage.MESH: FAILED, Stage.SEGMENT: FAILED, Stage.THUMBNAIL: FAILED})
    assert tuple(completion.stages) == completion.which(StageOutcome.FAILED) == EXPECTED
