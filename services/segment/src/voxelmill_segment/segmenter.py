"""What a segmentation model is to the rest of the service, and which models there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.plan import ModelName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from voxelmill_segment.labels import Segment
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import Report


class ModelRefusedError(VoxelmillError):
    """The model ended the work on this volume for a reason of its own, and another attempt would end like this one."""

    error_class = "model-refused"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label for every voxel of a volume.

    Parameters
    ----------
    labels
        uint8 (slices, rows, columns), 0 where no segment is.
    affine
        4x4, (column, row, slice) index to LPS millimetres: that of the volume.
    segments
        What was looked for, in order of number. A segment that was not found has no voxels.
    warnings
        One line each: what the model met and how it answered.
    facts
        What the label map was made with, for the receipt: `weights_digest`, `task`, `resolution`, `device`.
    """

    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


class Segmenter(Protocol):
    """A segmentation model. `revision` changes whenever the same input would give another label map."""

    @property
    def name(self) -> str:
        """The model's name, `threshold`."""

    @property
    def revision(self) -> str:
        """The revision of the method."""

    def segment(self, volume: Volume, plan: Plan, report: Report) -> LabelMap:
        """Label the segments that the plan's organ group asks for.

        Parameters
        ----------
        volume
            The series.
        plan
            What is asked for.
        report
            Is told the name of each step as it begins, and how many of its tiles are done; may raise to end the work.

        Raises
        ------
        NotApplicableError
            If the model has no meaning for this volume.
        """


def open_segmenter(plan: Plan) -> Segmenter:
    """Return the model that a plan names.

    Raises
    ------
    NotInstalledError
        If the model's library is not installed.
    """
    if plan.model is ModelName.TOTALSEGMENTATOR:
        from voxelmill_segment.totalsegmentator.segmenter import (  # noqa: PLC0415 - its library may not be installed
            open_totalsegmentator,
        )

        return open_totalsegmentator()
    from voxelmill_segment.threshold import ThresholdSegmenter  # noqa: PLC0415 - only the model in use is compiled

    return ThresholdSegmenter()
