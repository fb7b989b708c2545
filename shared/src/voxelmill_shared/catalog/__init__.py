"""The catalog: what has come in, what was made of it, and the audit trail. Index writes it, everyone else reads it.

The reading functions are used as `catalog.list_series(connection)`.
"""

from voxelmill_shared.catalog.queries import (
    addresses,
    artefacts,
    audit,
    counts,
    exists,
    find_job,
    get_object,
    get_series,
    list_series,
    objects,
    series_jobs,
)
from voxelmill_shared.catalog.scope import Scope
from voxelmill_shared.catalog.states import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.views import (
    ArtefactView,
    AuditView,
    Counts,
    FoundSeries,
    JobView,
    ObjectView,
    ProgressView,
    SeriesView,
    StageView,
)

__all__ = [
    "ArtefactView",
    "AuditView",
    "Counts",
    "FoundSeries",
    "JobStatus",
    "JobView",
    "ObjectStatus",
    "ObjectView",
    "ProgressView",
    "Scope",
    "SeriesView",
    "StageOutcome",
    "StageView",
    "addresses",
    "artefacts",
    "audit",
    "counts",
    "exists",
    "find_job",
    "get_object",
    "get_series",
    "list_series",
    "objects",
    "series_jobs",
]
