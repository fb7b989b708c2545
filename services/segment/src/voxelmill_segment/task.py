"""What the segment service asks its children for, in three phases, and what they answer.

Without the libraries that the children need, so that asking is cheap: what crosses the service's own process is plain
data, and volumes stay in files (`passing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_segment.labels import Segment
    from voxelmill_shared.events import ObjectKind
    from voxelmill_shared.plan import Plan

    Shape = tuple[int, int, int]
    Affine = tuple[tuple[float, ...], ...]


VOXELS = "volume.npy"
LABELS = "labels.npy"
"""Files in a task's output folder by which the phases hand on the volume and its labels."""


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A series, and what is asked for.

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


@dataclass(frozen=True, slots=True)
class Admission:
    """Asked before anything is fetched: can this worker do this at all? The answer is nothing, or an error."""

    plan: Plan
    kind: ObjectKind
    modality: str


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A `Volume` whose voxels lie in a file: `voxels` is a `.npy` of (slices, rows, columns), the rest as it is."""

    voxels: Path
    shape: Shape
    affine: Affine
    modality: str
    frame_of_reference_uid: str
    instance_order: tuple[int, ...]
    frame_order: tuple[int, ...]
    warnings: tuple[str, ...]
    distinction: str


@dataclass(frozen=True, slots=True)
class Preparation:
    """The first phase: read the series and choose the volume.

    Parameters
    ----------
    task
        The series.
    refused
        Shapes of volumes that the model has refused. The answer is None when there are no others.
    """

    task: SegmentTask
    refused: tuple[Shape, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The volume to segment, and a line for each other part of the series, which will not be."""

    volume: StoredVolume
    others: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Computation:
    """The second phase, on the device: label the volume. `labels` is the file to write."""

    volume: StoredVolume
    plan: Plan
    labels: Path


@dataclass(frozen=True, slots=True)
class Computed:
    """A `LabelMap` whose labels lie in a file: a `.npy` of uint8 of the volume's shape.

    Parameters
    ----------
    labels
        The file.
    segments, warnings
        As in `LabelMap`.
    model
        Name and revision of what has labelled it.
    facts
        What it was made with: JSON data, for the record of the stage.
    """

    labels: Path
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...]
    model: str
    seconds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """The third phase: measure, and write the results. The answer is a `WorkResult`."""

    task: SegmentTask
    prepared: Prepared
    computed: Computed
