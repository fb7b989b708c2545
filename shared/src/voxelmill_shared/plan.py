"""What is asked for: the plan of a job, and the job's name, which is the key of its content."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterable


class Organ(StrEnum):
    """The groups of segments that a user asks for. What each model gives for them: `voxelmill_segment.organs`."""

    LUNGS = "lungs"
    BONES = "bones"
    BODY = "body"
    AIRWAYS = "airways"
    HEART = "heart"
    AORTA = "aorta"
    VESSELS = "vessels"
    LIVER = "liver"
    SPLEEN = "spleen"
    PANCREAS = "pancreas"
    KIDNEYS = "kidneys"
    DIGESTIVE = "digestive"
    URINARY = "urinary"
    SPINE = "spine"
    RIBS = "ribs"
    PELVIS = "pelvis"
    MUSCLES = "muscles"
    BRAIN = "brain"
    ALL = "all"


class ModelName(StrEnum):
    """The segmentation models."""

    THRESHOLD = "threshold"
    TOTALSEGMENTATOR = "totalsegmentator"


class Quality(StrEnum):
    """How much time a job may take for how fine a result."""

    FAST = "fast"
    NORMAL = "normal"
    HIGH = "high"


class Resolution(StrEnum):
    """The working grid of a model that has several: of TotalSegmentator's `total` 1.5, 3 and 6 mm."""

    NORMAL = "normal"
    FAST = "fast"
    FASTEST = "fastest"


class MeshFormat(StrEnum):
    """The mesh files that can be written."""

    STL = "stl"
    PLY = "ply"
    OBJ = "obj"
    GLB = "glb"
    MZ3 = "mz3"


MODEL_REVISIONS: dict[ModelName, str] = {ModelName.THRESHOLD: "1", ModelName.TOTALSEGMENTATOR: "2.18.0"}
"""The revision of each model that this version of Voxelmill holds; of TotalSegmentator that of the library."""

TASK_PATTERN = r"^[A-Za-z0-9_]{0,64}$"


class Plan(BaseModel):
    """The parameters of a job.

    Parameters
    ----------
    model, model_revision
        The revision changes whenever the same input would give another label map.
    weights_digest
        The weights that the job must be computed with, as `voxelmill weights list` names them. Empty: those that the
        worker has, or the model has none.
    organ
        The group of segments that is wanted.
    quality
        Time against fineness, of every stage.
    reduction_percent
        How many of a mesh's triangles are taken away.
    formats
        The mesh files that are written.
    task
        A model's task by its name, `lung_vessels`. Empty: the model's usual one, chosen by organ and modality.
    resolution
        The working grid. None: `fast` where the quality is fast, else `normal`.
    max_error_mm
        How far a mesh may be from the smoothed boundary of its voxels, in millimetres; fewer triangles are taken away
        than `reduction_percent` where they would take it further. None: no bound.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: ModelName = ModelName.THRESHOLD
    model_revision: str = "1"
    weights_digest: str = ""
    organ: Organ = Organ.ALL
    quality: Quality = Quality.NORMAL
    reduction_percent: int = Field(default=90, ge=0, le=99)
    formats: tuple[MeshFormat, ...] = (MeshFormat.STL, MeshFormat.PLY, MeshFormat.OBJ, MeshFormat.GLB)
    task: str = Field(default="", pattern=TASK_PATTERN)
    resolution: Resolution | None = None
    max_error_mm: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)

    @property
    def subject(self) -> str:
        """What a user calls the result: the organ group, or the task, or both."""
        if not self.task:
            return self.organ
        return self.task if self.organ is Organ.ALL else f"{self.task}_{self.organ}"

    def job_id(self, instance_contents: Iterable[str]) -> str:
        """Return the content key of a job: 24 hex digits over the sorted instances' content and this plan.

        The same job asked for twice has the same name, so it is computed once (DESIGN: guarantee 4).
        """
        plan = self.model_dump(mode="json")
        for name in _ADDED_LATER:
            if plan[name] == Plan.model_fields[name].default:
                del plan[name]  # jobs that were named before the field was there keep their names
        plan["formats"] = sorted(plan["formats"])
        text = json.dumps([sorted(instance_contents), plan], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]


_ADDED_LATER = ("task", "resolution", "max_error_mm")
"""Fields of the plan that the first release did not have."""
