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
from voxelmill_shared.catalog.states import JobStatus, ObjectStatus, StageOutcome
from voxelmill_shared.catalog.views import (
    ArtefactView,
    AuditView,
    Counts,
    JobView,
    ObjectView,
    SeriesView,
    StageView,
)

__all__ = [
    "ArtefactView",
    "AuditView",
    "Counts",
    "JobStatus",
    "JobView",
    "ObjectStatus",
    "ObjectView",
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
