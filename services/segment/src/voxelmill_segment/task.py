"""What the segment service asks its child for. Without the libraries that the child needs, so that asking is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.events import ObjectKind
    from voxelmill_shared.plan import Plan


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """What the child is asked for.

    Parameters
    ----------
    paths
        The files of the series, in the manifest's order.
    kind
        DICOM or NIfTI.
    modality
        As ingest has read it; empty where the format has none.
    plan
        Model, organ group and quality.
    output
        The folder to write into; it need not exist yet.
    study_instance_uid, series_instance_uid
        As the manifest has them. Its UIDs rule over those in the files, where an anonymiser may have blanked them:
        ingest has made up what was missing, and by these the catalog knows the series.
    sop_instance_uids, sop_class_uids
        Of each file, in the order of `paths`. A class is empty where ingest has found none.
    """

    paths: tuple[Path, ...]
    kind: ObjectKind
    modality: str
    plan: Plan
    output: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    sop_class_uids: tuple[str, ...]
