"""The words in which the catalog speaks of objects, stages and jobs."""

from __future__ import annotations

from enum import StrEnum


class ObjectStatus(StrEnum):
    """What became of an object: taken, broken, sound but not for this pipeline, or given up after failures."""

    VALIDATED = "validated"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    FAILED = "failed"


class StageOutcome(StrEnum):
    """How a stage of a job ended; `pending` until it has."""

    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class JobStatus(StrEnum):
    """Where a job stands: `partial` means that every stage has settled and at least one of them failed."""

    PROCESSING = "processing"
    COMPLETE = "complete"
    PARTIAL = "partial"
