"""When a job is settled, and how: the decision, without a database or a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.events import Stage, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPECTED = (Stage.THUMBNAIL, Stage.SEGMENT, Stage.MESH)
"""The stages that every job goes through after ingest, in their order."""


@dataclass(frozen=True, slots=True)
class StageState:
    """How a stage ended, as far as it has been told."""

    outcome: StageOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """The expected stages of a job: what was told of them, and what follows for the others."""

    told: Mapping[Stage, StageState]

    @property
    def implied(self) -> dict[Stage, StageState]:
        """The stages of which nobody will tell, because the stage before them gave them nothing to work on."""
        segment = self.told.get(Stage.SEGMENT)
        if Stage.MESH in self.told or segment is None or segment.outcome is StageOutcome.DONE:
            return {}
        what = "failed" if segment.outcome is StageOutcome.FAILED else "was skipped"
        return {Stage.MESH: StageState(StageOutcome.SKIPPED, f"segment {what}: {segment.reason}")}

    @property
    def stages(self) -> dict[Stage, StageState]:
        """Every expected stage, in its order; `pending` where nothing is known."""
        known = {**self.implied, **self.told}
        return {stage: known.get(stage, StageState(StageOutcome.PENDING)) for stage in EXPECTED}

    def which(self, outcome: StageOutcome) -> tuple[Stage, ...]:
        """Return the expected stages with that outcome."""
        return tuple(stage for stage, state in self.stages.items() if state.outcome is outcome)

    @property
    def status(self) -> Status | None:
        """How the job ended, or none while a stage is pending."""
        if self.which(StageOutcome.PENDING):
            return None
        return Status.PARTIAL if self.which(StageOutcome.FAILED) else Status.COMPLETE
