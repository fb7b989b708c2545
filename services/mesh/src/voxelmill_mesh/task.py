"""What the mesh service asks its child for. Without the libraries that the child needs, so that asking is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from voxelmill_shared.plan import Plan


@dataclass(frozen=True, slots=True)
class MeshTask:
    """What to mesh.

    Attributes
    ----------
    label_map
        A NIfTI-1 file of integers, gzip or plain.
    segments
        The segments of the label map, from segment's record: `number` (the label, 1 to 65535), `name` (of letters,
        digits, `_` and `-`, 100 at most, no two alike but for case: it names the files), `rgb` (sRGB, a list of three,
        0 to 255). Other keys are ignored.
    plan
        The job's parameters; `quality`, `reduction_percent`, `max_error_mm` and `formats` matter here.
    output
        A folder for the files; made if missing.
    """

    label_map: Path
    segments: tuple[dict[str, Any], ...]
    plan: Plan
    output: Path
