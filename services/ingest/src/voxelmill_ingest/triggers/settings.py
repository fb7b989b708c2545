"""Which sources of notifications an ingest process listens to. None of them is on by default."""

from __future__ import annotations

from voxelmill_ingest.settings import IngestSettings


class IngestProcessSettings(IngestSettings):
    """Ingest's settings and those of its triggers.

    The commands that run every service in one process read `IngestSettings` alone: a run of one folder must never take
    the notifications of an installation.
    """
