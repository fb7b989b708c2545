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
    """The groups of segments that a user asks for."""

    LUNGS = "lungs"
    BONES = "bones"
    BODY = "body"
    AIRWAYS = "airways"
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


class MeshFormat(StrEnum):
    """The mesh files that can be written."""

    STL = "stl"
    PLY = "ply"
    OBJ = "obj"
    GLB = "glb"


class Plan(BaseModel):
    """The parameters of a job. `model_revision` changes whenever the same input would give another label map.

    `weights_digest` is empty for a model without weights.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: ModelName = ModelName.THRESHOLD
    model_revision: str = "1"
    weights_digest: str = ""
    organ: Organ = Organ.ALL
    quality: Quality = Quality.NORMAL
    reduction_percent: int = Field(default=90, ge=0, le=99)
    formats: tuple[MeshFormat, ...] = (MeshFormat.STL, MeshFormat.PLY, MeshFormat.OBJ, MeshFormat.GLB)

    def job_id(self, instance_contents: Iterable[str]) -> str:
        """Return the content key of a job: 24 hex digits over the sorted instances' content and this plan.

        The same job asked for twice has the same name, so it is computed once (DESIGN: guarantee 4).
        """
        plan = self.model_dump(mode="json")
        plan["formats"] = sorted(plan["formats"])
        text = json.dumps([sorted(instance_contents), plan], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]
